package host

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// root is the source tree's folder: the nearest one upwards that has a config.json beside
// its go.mod. Tests in a module of their own have a go.mod too.
var root = sync.OnceValue(func() string {
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "config.json")); err == nil {
			return dir
		}
	}
	panic("host: not inside the source tree")
})

// A tree is what dist/plugin installs from, apart from the source tree, so that a test
// neither uses nor changes what lies in its bin/.
func treeDir(version string) string { return filepath.Join(root(), ".cache", version) }

// buildApp makes the program of the test containers, once a test run.
var buildApp = sync.OnceValue(func() error {
	return gobuild(filepath.Join(treeDir("test"), "bin/app"), "test", "./test/app")
})

// buildPlugin makes the tree of the version "test", once a test run.
var buildPlugin = sync.OnceValue(func() error { return buildTree("test") })

func buildTree(version string) error {
	dir := treeDir(version)
	if err := os.MkdirAll(filepath.Join(dir, "dist"), 0o755); err != nil {
		return err
	}
	for _, f := range []string{"dist/plugin", "config.json"} {
		b, err := os.ReadFile(filepath.Join(root(), f))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, f), b, 0o755); err != nil {
			return err
		}
	}
	for bin, pkg := range map[string]string{"nuage-plugin": "./plugin", "nuagectl": "./cmd/nuagectl"} {
		if err := gobuild(filepath.Join(dir, "bin", bin), version, pkg); err != nil {
			return err
		}
	}
	return nil
}

func gobuild(out, version, pkg string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+version, "-o", out, pkg)
	cmd.Dir = root()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, text)
	}
	return nil
}
