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
	"time"
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
	if err := j.Put("null", "<&>\u2028", (*record)(nil)); err != nil {
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
	if ok, err := j.Get("null", "<&>\u2028", new(*record)); !ok || err != nil {
		t.Errorf("a record that says null: %v %v", ok, err)
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
	// Enough to have the file rewritten meanwhile.
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
	for range 2 {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
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
		"no text":  j.Put("k", "\xff", record{}),
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

func TestConcurrentWritersShareCommits(t *testing.T) {
	j := mustOpen(t, t.TempDir())
	before := j.log.next
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
	if n := j.log.next - before; n > 50 {
		t.Errorf("%d commits for 100 records: the writers did not share them", n)
	}
}

// Writes that are too many for one commit are told from those that are too many for any.
func TestBigWrites(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, dir)
	if err := j.Put("endpoint", "all", record{strings.Repeat("x", maxWrites)}); err == nil {
		t.Error("more than one commit's worth is accepted")
	}
	before := j.log.next
	j.commit.Lock() // so that they meet
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			if err := j.Put("endpoint", fmt.Sprint(i), record{strings.Repeat("x", maxWrites*2/5)}); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(300 * time.Millisecond)
	j.commit.Unlock()
	wg.Wait()
	if n := j.log.next - before; n != 2 && n != 3 { // 2 and 2, or a straggler
		t.Errorf("%d commits", n)
	}
	j.Close()
	if got := ids(t, mustOpen(t, dir), "endpoint"); got != "0,1,2,3" {
		t.Errorf("after reopening: %s", got)
	}
}

// The file grows with what it holds, not with what was ever written.
func TestFileStaysSmall(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, dir)
	file := filepath.Join(dir, fileName)
	value, most := record{strings.Repeat("x", 10_000)}, int64(0)
	for i := range 1000 {
		if err := j.Put("endpoint", fmt.Sprint(i%7), value); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(file); err != nil {
			t.Fatal(err)
		} else {
			most = max(most, info.Size())
		}
	}
	if most < minimum/2 || most > minimum {
		t.Errorf("the file grew to %d bytes with 70 kB of records", most)
	}
	j.Close()
	j = mustOpen(t, dir)
	if info, err := os.Stat(file); err != nil || info.Size() > 80_000 {
		t.Errorf("after opening: %d bytes, %v", info.Size(), err)
	}
	if got := ids(t, j, "endpoint"); got != "0,1,2,3,4,5,6" {
		t.Errorf("records %s", got)
	}
}

// An fsync is nearly all of it, shared by half of the writers where they are many.
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
