package archtest

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mayImport is the table of the design, section 3: each package and the packages of the
// project that it may import. A package that is not listed fails the test, so that a new
// one is placed deliberately.
var mayImport = map[string][]string{
	"plugin":            {"*"},
	"plugin/monitor":    {"driver", "controller/tenant"},
	"plugin/vm":         {"ipam", "controller/tenant", "ovs"},
	"driver":            {"ipam", "controller/tenant", "driver/link", "driver/journal"},
	"driver/link":       {},
	"driver/journal":    {},
	"ipam":              {"controller/tenant"},
	"ovs":               {"ovs/flow", "ovs/openflow"},
	"ovs/ovstest":       {},
	"ovs/flow":          {},
	"ovs/openflow":      {"ovs/flow"},
	"ovs/pipeline":      {"controller/tenant", "ovs/flow"},
	"ovs/agent":         {"controller/tenant", "ovs", "ovs/flow", "ovs/openflow", "ovs/pipeline"},
	"controller/tenant": {},
	"controller/store":  {"controller/tenant"},
	"controller/vsd":    {"controller/tenant", "controller/store"},
	"controller/ui":     {},
	"cmd/nuagectl":      {},
	"internal/archtest": {},
}

// onlyImporters are the packages that alone may import something of the world.
var onlyImporters = map[string][]string{
	"github.com/vishvananda/":               {"driver/link", "ovs/ovstest"},
	"go.etcd.io/etcd/":                      {"controller/store"},
	"github.com/ovn-kubernetes/":            {"ovs"},
	"github.com/docker/docker/":             {"plugin", "plugin/monitor"},
	"github.com/moby/":                      {"plugin", "plugin/monitor"},
	"github.com/docker/go-plugins-helpers/": {"plugin", "driver", "ipam"},
	"github.com/digitalocean/":              {"cmd/nuagectl", "ovs/ovstest"},
	"os/exec":                               {"cmd/nuagectl", "ovs/ovstest"},
	"net/http/pprof":                        {},
}

const maxLines = 400

type source struct {
	pkg, file string
	ast       *ast.File
	lines     int
}

// sources are the project's Go files but for tests, test support under test/, and
// generated code.
func sources(t *testing.T) []source {
	t.Helper()
	root := filepath.Join("..", "..")
	var found []source
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if rel != "." && strings.HasPrefix(d.Name(), ".") || rel == "test" || rel == "bin" || d.Name() == "testdata" {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, text, parser.ParseComments)
		if err != nil {
			return err
		}
		if !ast.IsGenerated(f) {
			found = append(found, source{path.Dir(rel), rel, f, bytes.Count(text, []byte("\n"))})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 10 {
		t.Fatalf("only %d files found: is the test in its place?", len(found))
	}
	return found
}

func TestImports(t *testing.T) {
	for _, s := range sources(t) {
		allowed, listed := mayImport[s.pkg]
		if !listed {
			t.Errorf("%s: package %s is not in the table; the design says who may import whom", s.file, s.pkg)
			continue
		}
		for _, spec := range s.ast.Imports {
			imported := strings.Trim(spec.Path.Value, `"`)
			if own, ok := strings.CutPrefix(imported, "nuage/"); ok && !slices.Contains(allowed, "*") && !slices.Contains(allowed, own) {
				t.Errorf("%s: %s may not import %s", s.file, s.pkg, own)
			}
			for prefix, importers := range onlyImporters {
				if strings.HasPrefix(imported, prefix) && !slices.Contains(importers, s.pkg) {
					t.Errorf("%s: only %v may import %s", s.file, importers, imported)
				}
			}
		}
	}
}

func TestPackageComments(t *testing.T) {
	comments := map[string][]string{}
	for _, s := range sources(t) {
		if comments[s.pkg] == nil {
			comments[s.pkg] = []string{}
		}
		if s.ast.Doc != nil {
			comments[s.pkg] = append(comments[s.pkg], s.ast.Doc.Text())
		}
	}
	for pkg, docs := range comments {
		switch {
		case len(docs) != 1:
			t.Errorf("package %s has %d package comments, want one", pkg, len(docs))
		case !strings.Contains(docs[0], "never"):
			t.Errorf("package %s: its comment does not say what it never does", pkg)
		}
	}
}

func TestSizesAndNames(t *testing.T) {
	for _, s := range sources(t) {
		if s.lines > maxLines {
			t.Errorf("%s has %d lines, more than %d: one subject a file", s.file, s.lines, maxLines)
		}
		for _, word := range []string{"util", "common", "helper", "manager"} {
			if strings.Contains(s.file, word) {
				t.Errorf("%s: %q says nothing of what it holds", s.file, word)
			}
		}
	}
}
