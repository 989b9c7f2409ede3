package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

type record struct{ Name string }

func mustOpen(t testing.TB, dir string) *Journal {
	t.Helper()
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func ids(t testing.TB, j *Journal, kind string) string {
	t.Helper()
	var all []string
	if err := j.List(kind, func(id string, value []byte) error {
		if !json.Valid(value) {
			t.Fatalf("%s %s: not JSON: %q", kind, id, value)
		}
		all = append(all, id)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, ",")
}

func TestRecordsSurviveReopening(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "journal")
	j := mustOpen(t, dir)
	if err := j.Apply(Set("endpoint", "b", record{"two"}), Set("endpoint", "a", record{"one"}), Set("network", "n", record{"net"}), Drop("endpoint", "never")); err != nil {
		t.Fatal(err)
	}
	if err := j.Delete("endpoint", "b"); err != nil {
		t.Fatal(err)
	}
	if err := j.Delete("nokind", "b"); err != nil {
		t.Fatal(err)
	}
	j.Close()
	j = mustOpen(t, dir)
	if j.Moved() != "" {
		t.Errorf("a good file was moved to %s", j.Moved())
	}
	var r record
	if ok, err := j.Get("endpoint", "a", &r); !ok || err != nil || r.Name != "one" {
		t.Errorf("got %v %v %+v", ok, err, r)
	}
	if ok, err := j.Get("endpoint", "b", &r); ok || err != nil {
		t.Errorf("deleted record: %v %v", ok, err)
	}
	if ok, err := j.Get("nokind", "b", &r); ok || err != nil {
		t.Errorf("unknown kind: %v %v", ok, err)
	}
	if got := ids(t, j, "endpoint") + "/" + ids(t, j, "network") + "/" + ids(t, j, "nokind"); got != "a/n/" {
		t.Errorf("listed %q", got)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, fileName): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v, want %v", path, info.Mode().Perm(), err, mode)
		}
	}
}

func TestWritesInsideListDoNotBlock(t *testing.T) {
	j := mustOpen(t, t.TempDir())
	for i := range 50 {
		if err := j.Put("endpoint", fmt.Sprint(i), record{strings.Repeat("x", 4000)}); err != nil {
			t.Fatal(err)
		}
	}
	// Enough to make the file grow, which waits for open readers.
	if err := j.List("endpoint", func(id string, _ []byte) error {
		return j.Apply(Drop("endpoint", id), Set("other", id, record{strings.Repeat("y", 100_000)}))
	}); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	if err := j.List("other", func(string, []byte) error { return stop }); err != stop {
		t.Errorf("List hides the error of its function: %v", err)
	}
}

func TestLockedFileSaysSo(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, dir)
	_, err := Open(dir)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "another nuage-plugin") {
		t.Errorf("got %v", err)
	}
}

func TestClosed(t *testing.T) {
	j := mustOpen(t, t.TempDir())
	j.Close()
	var r record
	_, get := j.Get("k", "i", &r)
	for _, err := range []error{j.Put("k", "i", r), j.Delete("k", "i"), get, j.List("k", nil)} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
}

func TestBadInputIsAnError(t *testing.T) {
	j := mustOpen(t, t.TempDir())
	for name, err := range map[string]error{
		"no kind":  j.Put("", "i", record{}),
		"no id":    j.Put("k", "", record{}),
		"long id":  j.Put("k", strings.Repeat("i", 40_000), record{}),
		"no JSON":  j.Put("k", "i", make(chan int)),
		"half bad": j.Apply(Set("k", "good", record{}), Set("k", "bad", make(chan int))),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if got := ids(t, j, "k"); got != "" {
		t.Errorf("a refused Apply left %q", got)
	}
	j.Put("k", "i", 7)
	if ok, err := j.Get("k", "i", &record{}); ok || err == nil {
		t.Errorf("a record of another shape: %v %v", ok, err)
	}
}

// A damaged file is moved aside whatever the damage, and Open never panics.
func TestDamage(t *testing.T) {
	good := t.TempDir()
	j := mustOpen(t, good)
	for i := range 400 {
		if err := j.Put("endpoint", fmt.Sprint(i), record{strings.Repeat("x", 100)}); err != nil {
			t.Fatal(err)
		}
	}
	j.Close()
	whole, err := os.ReadFile(filepath.Join(good, fileName))
	if err != nil {
		t.Fatal(err)
	}
	check := func(t *testing.T, name string, content []byte, must bool) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName), content, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := Open(dir)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		defer j.Close()
		if must && j.Moved() == "" {
			t.Errorf("%s: not noticed", name)
		}
		if j.Moved() != "" {
			if aside, err := os.ReadFile(j.Moved()); err != nil || len(aside) != len(content) {
				t.Errorf("%s: the file aside: %d bytes of %d, %v", name, len(aside), len(content), err)
			}
		}
		if err := j.Put("endpoint", "new", record{}); err != nil {
			t.Errorf("%s: not usable afterwards: %v", name, err)
		}
		if err := j.List("endpoint", func(string, []byte) error { return nil }); err != nil {
			t.Errorf("%s: not readable afterwards: %v", name, err)
		}
	}
	check(t, "text", []byte("this is not a database, whatever its name says"), true)
	check(t, "empty", nil, false)
	for _, n := range []int{1, 100, 4096, 8192, 12288, 20000, len(whole) / 2, len(whole) - 4096} {
		check(t, fmt.Sprintf("cut at %d of %d", n, len(whole)), whole[:n], false)
	}
	zeroes := append([]byte(nil), whole...)
	clear(zeroes[8192:])
	check(t, "zeroed pages", zeroes, true)
	rapid.Check(t, func(rt *rapid.T) {
		bad := append([]byte(nil), whole...)
		for range rapid.IntRange(1, 20).Draw(rt, "n") {
			bad[rapid.IntRange(0, len(bad)-1).Draw(rt, "at")] = rapid.Byte().Draw(rt, "byte")
		}
		check(t, "flipped bytes", bad, false)
	})
}

func TestConcurrentWritersShareCommits(t *testing.T) {
	j := mustOpen(t, t.TempDir())
	before := j.db.Stats().TxStats
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			id := fmt.Sprint(i)
			if err := j.Put("endpoint", id, record{id}); err != nil {
				t.Error(err)
			}
			var r record
			if ok, err := j.Get("endpoint", id, &r); !ok || err != nil || r.Name != id {
				t.Errorf("%s: not there on return: %v %v", id, ok, err)
			}
		})
	}
	wg.Wait()
	if n := len(strings.Split(ids(t, j, "endpoint"), ",")); n != 100 {
		t.Errorf("%d records", n)
	}
	after := j.db.Stats().TxStats
	// Alone, each record writes a leaf, a root, a freelist and a meta page.
	if n := after.GetWrite() - before.GetWrite(); n > 300 {
		t.Errorf("%d page writes for 100 records: the writers did not share commits", n)
	}
}

func BenchmarkPut(b *testing.B) {
	j := mustOpen(b, b.TempDir())
	for i := 0; b.Loop(); i++ {
		if err := j.Put("endpoint", fmt.Sprint(i%100), record{strings.Repeat("x", 600)}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPutParallel(b *testing.B) {
	j := mustOpen(b, b.TempDir())
	b.SetParallelism(25)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if err := j.Put("endpoint", fmt.Sprint(i%100), record{strings.Repeat("x", 600)}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
