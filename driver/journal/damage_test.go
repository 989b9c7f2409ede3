package journal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// history is commits, and the file that they make: one line before all of them, and one each.
type history struct {
	commits [][]write
	lines   [][]byte
}

func newHistory(t *testing.T, commits int) history {
	t.Helper()
	dir := t.TempDir()
	j := mustOpen(t, dir)
	var h history
	for i := range commits {
		key, value := fmt.Sprint(i%5), fmt.Sprint("value ", i)
		ops := []Op{Set("endpoints", key, value), Set("networks", key, value)}
		if i%4 == 3 {
			ops[1] = Drop("networks", fmt.Sprint((i-1)%5))
		}
		if err := j.Apply(ops...); err != nil {
			t.Fatal(err)
		}
		var writes []write
		for _, o := range ops {
			w := write{Kind: o.kind, ID: o.id}
			if o.value != nil {
				w.Value = fmt.Appendf(nil, "%q", o.value)
			}
			writes = append(writes, w)
		}
		h.commits = append(h.commits, writes)
	}
	j.Close()
	whole, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	h.lines = bytes.SplitAfter(whole, []byte("\n"))
	h.lines = h.lines[:len(h.lines)-1]
	if len(h.lines) != commits+1 {
		t.Fatalf("%d lines for %d commits", len(h.lines), commits)
	}
	return h
}

func (h history) file() []byte { return bytes.Join(h.lines, nil) }

// says is what the commits from one to another leave, as text.
func (h history) says(from, to int) string {
	t := table{}
	for _, c := range h.commits[from:to] {
		t.apply(c)
	}
	return text(t)
}

func text(t table) string {
	t = maps.Clone(t)
	maps.DeleteFunc(t, func(_ string, records map[string]json.RawMessage) bool { return len(records) == 0 })
	return fmt.Sprintf("%s", t)
}

// reopened is the journal that Open makes of a file. It must be usable, and again be found
// as it was; a file that was put aside must be there to the last byte.
func reopened(t *testing.T, content []byte) (says string, moved bool) {
	t.Helper()
	dir, err := os.MkdirTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, fileName), content, 0o644); err != nil {
		t.Fatal(err)
	}
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	says, moved = text(j.records), j.Moved() != ""
	if moved {
		if aside, err := os.ReadFile(j.Moved()); err != nil || !bytes.Equal(aside, content) {
			t.Errorf("the file aside: %d bytes of %d, %v", len(aside), len(content), err)
		}
		if info, err := os.Stat(j.Moved()); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the file aside: %v %v", info.Mode(), err)
		}
	}
	if err := j.Put("new", "new", 1); err != nil {
		t.Errorf("not usable afterwards: %v", err)
	}
	j.Close()
	again, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	var one int
	if ok, err := again.Get("new", "new", &one); !ok || err != nil || again.Moved() != "" {
		t.Errorf("opened again: %v %v, moved %q", ok, err, again.Moved())
	}
	delete(again.records, "new")
	if got := text(again.records); got != says {
		t.Errorf("opened again it says\n%s, and before\n%s", got, says)
	}
	return says, moved
}

// understood is what read makes of a file; every so often it is opened as well.
func understood(t *testing.T, n int, file []byte) (says string, moved bool) {
	t.Helper()
	c, err := read(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	says, moved = text(c.records), c.damaged
	if n%29 == 0 {
		if s, m := reopened(t, file); s != says || m != moved {
			t.Errorf("opened: moved=%v %s\nread: moved=%v %s", m, s, moved, says)
		}
	}
	return says, moved
}

// A crash in the middle of a write leaves all that was acknowledged, and says nothing.
func TestTornTail(t *testing.T) {
	h := newHistory(t, 6)
	whole := h.file()
	for n := range len(whole) + 1 {
		says, moved := understood(t, n, whole[:n])
		lines := bytes.Count(whole[:n], []byte("\n"))
		if lines == 0 { // Open never leaves such a file
			if !moved || says != "map[]" {
				t.Fatalf("cut at %d: moved=%v %s", n, moved, says)
			}
		} else if want := h.says(0, lines-1); moved || says != want {
			t.Fatalf("cut at %d of %d: moved=%v\n got %s\nwant %s", n, len(whole), moved, says, want)
		}
		if lines == len(h.lines)-1 { // space was there already, what was to go there was not
			hole := append(bytes.Clone(whole[:n]), make([]byte, len(whole)-n)...)
			if says, moved := understood(t, n, hole); n < len(whole) && (moved || says != h.says(0, 5)) {
				t.Fatalf("zeroed from %d: moved=%v %s", n, moved, says)
			}
		}
	}
}

// Each byte damaged: what was last written behind it is kept, and nothing else.
func TestDamagedByte(t *testing.T) {
	h := newHistory(t, 6)
	whole := h.file()
	for n := range whole {
		at := bytes.Count(whole[:n], []byte("\n")) // the line it is in
		first := at
		if whole[n] == '\n' {
			first++ // the next line is part of it now
		}
		for _, bad := range []byte{whole[n] ^ 1, 0, '\n'} {
			if bad == whole[n] {
				continue
			}
			content := bytes.Clone(whole)
			content[n] = bad
			says, moved := understood(t, n, content)
			want, wantMoved := h.says(min(first, 6), 6), true
			if first > 6 { // the last newline: not told from a torn tail
				want, wantMoved = h.says(0, 5), false
			}
			if says != want || moved != wantMoved {
				t.Fatalf("byte %d in line %d: moved=%v\n got %s\nwant %s", n, at, moved, says, want)
			}
		}
	}
}

// Whatever is done to the file: what is left is what some commits one after the other have
// written, the first of all included unless the file was put aside.
func TestDamage(t *testing.T) {
	h := newHistory(t, 25)
	whole := h.file()
	prefixes, runs := map[string]bool{}, map[string]bool{}
	for to := range 26 {
		prefixes[h.says(0, to)] = true
		for from := range to + 1 {
			runs[h.says(from, to)] = true
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		bad := bytes.Clone(whole)
		for range rapid.IntRange(1, 4).Draw(rt, "damages") {
			if len(bad) == 0 {
				break
			}
			from := rapid.IntRange(0, len(bad)-1).Draw(rt, "from")
			to := min(len(bad), from+rapid.OneOf(rapid.IntRange(0, 10), rapid.IntRange(0, len(bad))).Draw(rt, "length"))
			if rapid.Bool().Draw(rt, "whole lines") {
				from = bytes.LastIndexByte(bad[:from], '\n') + 1
				to += bytes.IndexByte(bad[to:], '\n') + 1
			}
			switch rapid.SampledFrom([]string{"flip", "zero", "cut", "remove", "repeat"}).Draw(rt, "damage") {
			case "flip":
				for n := from; n < to; n += rapid.IntRange(1, 50).Draw(rt, "step") {
					bad[n] ^= rapid.ByteRange(1, 255).Draw(rt, "flip")
				}
			case "zero":
				clear(bad[from:to])
			case "cut":
				bad = bad[:from]
			case "remove":
				bad = append(bad[:from:from], bad[to:]...)
			case "repeat":
				at := rapid.IntRange(0, len(bad)).Draw(rt, "at")
				bad = bytes.Join([][]byte{bad[:at], bad[from:to], bad[at:]}, nil)
			}
		}
		says, moved := reopened(t, bad)
		switch {
		case t.Failed():
			rt.FailNow()
		case !moved && !prefixes[says]:
			rt.Errorf("not noticed, and no state that ever was: %s", says)
		case moved && !runs[says]:
			rt.Errorf("kept what is out of date: %s", says)
		}
	})
}

func TestNotAJournal(t *testing.T) {
	for name, content := range map[string]string{
		"text":        "this is not a journal, whatever its name says",
		"lines":       "this is not\na journal\n",
		"empty":       "",
		"zeroes":      strings.Repeat("\x00", 100_000),
		"of the past": string(line(0, nil)) + string(line(1, []byte("7"))),
	} {
		if says, moved := reopened(t, []byte(content)); !moved || says != "map[]" {
			t.Errorf("%s: moved=%v %s", name, moved, says)
		}
	}
}

// A file's size is never believed: this one would take minutes to read, and more memory
// than there is.
func TestHugeFile(t *testing.T) {
	h := newHistory(t, 3)
	for name, content := range map[string][]byte{"nothing": nil, "a journal": h.file()} {
		dir := t.TempDir()
		path := filepath.Join(dir, fileName)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 1<<42); err != nil {
			t.Fatal(err)
		}
		if j := mustOpen(t, dir); j.Moved() == "" || len(j.records) != 0 {
			t.Errorf("%s and a great hole: moved=%q %v", name, j.Moved(), j.records)
		}
	}
}
