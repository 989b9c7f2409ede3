package journal

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// smallDisk is a directory with so many bytes, and a function that leaves so many free.
func smallDisk(t *testing.T, size int64) (dir string, leave func(free int64)) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("NUAGE_TEST_ROOT") == "0" {
			t.Skip("needs root to mount a small disk")
		}
		t.Fatal("needs root to mount a small disk (NUAGE_TEST_ROOT=0 skips this)")
	}
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(disk, unix.MNT_DETACH) })
	filler, err := os.Create(filepath.Join(disk, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { filler.Close() })
	return filepath.Join(disk, "journal"), func(free int64) {
		t.Helper()
		if err := filler.Truncate(0); err != nil {
			t.Fatal(err)
		}
		var st unix.Statfs_t
		if err := unix.Statfs(disk, &st); err != nil {
			t.Fatal(err)
		}
		if n := int64(st.Bavail)*st.Bsize - free; n > 0 {
			if err := unix.Fallocate(int(filler.Fd()), 0, 0, n); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// holds fails unless the journal has just these names, in memory and on disk.
func holds(t *testing.T, j *Journal, dir, want string) *Journal {
	t.Helper()
	if got := ids(t, j, "endpoint"); got != want {
		t.Errorf("records %s, want %s", got, want)
	}
	j.Close()
	j = mustOpen(t, dir)
	if got := ids(t, j, "endpoint"); got != want || j.Moved() != "" {
		t.Errorf("records after reopening %s, want %s; moved %q", got, want, j.Moved())
	}
	if _, err := os.Stat(filepath.Join(dir, fileName+".new")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a half-written file is left: %v", err)
	}
	return j
}

func TestDiskFull(t *testing.T) {
	const page = 4096
	big := record{strings.Repeat("x", 3*page)}
	dir, leave := smallDisk(t, 4<<20)
	j := mustOpen(t, dir)
	if err := j.Put("endpoint", "a", record{}); err != nil {
		t.Fatal(err)
	}
	for _, free := range []int64{0, page, 2 * page} { // nothing and something of it fits
		leave(free)
		for range 2 {
			if err := j.Apply(Set("endpoint", "b", record{}), Set("endpoint", "c", big)); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("with %d bytes left: %v", free, err)
			}
		}
		if got := ids(t, j, "endpoint"); got != "a" {
			t.Errorf("after a write that failed: %s", got)
		}
	}
	leave(2 * page)
	if err := j.Put("endpoint", "d", record{}); err != nil {
		t.Errorf("a write for which there is room: %v", err)
	}
	leave(100 * page)
	j = holds(t, j, dir, "a,d")

	// Opened on a full disk it can be read, and written as soon as there is room.
	for _, tail := range []string{"", "deadbeef {"} {
		j.Close()
		path := filepath.Join(dir, fileName)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(whole, tail...), 0o600); err != nil {
			t.Fatal(err)
		}
		leave(0)
		j = mustOpen(t, dir)
		if got := ids(t, j, "endpoint"); got != "a,d" || j.Moved() != "" {
			t.Errorf("opened on a full disk: %s, moved %q", got, j.Moved())
		}
		if err := j.Put("endpoint", "e", big); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("opened on a full disk: %v", err)
		}
		leave(100 * page)
		if err := j.Put("endpoint", "e", big); err != nil {
			t.Error(err)
		}
		j = holds(t, j, dir, "a,d,e")
		if err := j.Delete("endpoint", "e"); err != nil {
			t.Error(err)
		}
	}
}

// A file that there is no room to rewrite goes on growing as long as there is room for that.
func TestNoRoomToRewrite(t *testing.T) {
	dir, leave := smallDisk(t, 4<<20)
	j := mustOpen(t, dir)
	value := record{strings.Repeat("x", 9000)}
	put := func(n int) (err error) {
		for i := 0; i < n && err == nil; i++ {
			err = j.Put("endpoint", fmt.Sprintf("%03d", i), value)
		}
		return err
	}
	if err := put(100); err != nil {
		t.Fatal(err)
	}
	leave(700_000) // less than they take
	if err := put(50); err != nil || j.log.size <= minimum {
		t.Errorf("no room to rewrite: %v, %d bytes", err, j.log.size)
	}
	if err := put(100); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("no room at all: %v", err)
	}
	leave(4 << 20)
	if err := put(100); err != nil {
		t.Error(err)
	}
	if j.log.size > 2*minimum {
		t.Errorf("not rewritten since: %d bytes", j.log.size)
	}
	if n := len(strings.Split(ids(t, j, "endpoint"), ",")); n != 100 {
		t.Errorf("%d records", n)
	}
}

// After an fsync that failed, nobody knows what the disk has: the file is written anew. The
// device takes every byte, and no fsync.
func TestSyncFails(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, dir)
	if err := j.Put("endpoint", "a", record{}); err != nil {
		t.Fatal(err)
	}
	breaks := func() {
		t.Helper()
		null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		j.log.file.Close()
		j.log.file = null
		if err := j.Put("endpoint", "b", record{}); err == nil || !strings.Contains(err.Error(), "fdatasync") {
			t.Errorf("an fsync that failed: %v", err)
		}
	}
	breaks()
	if err := j.Put("endpoint", "c", record{}); err != nil {
		t.Error(err)
	}
	j = holds(t, j, dir, "a,c")

	obstacle := filepath.Join(dir, fileName+".new")
	if err := os.MkdirAll(filepath.Join(obstacle, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	breaks()
	if err := j.Put("endpoint", "d", record{}); err == nil {
		t.Error("written to a file of which nobody knows what it has")
	}
	if err := os.RemoveAll(obstacle); err != nil {
		t.Fatal(err)
	}
	if err := j.Put("endpoint", "e", record{}); err != nil {
		t.Error(err)
	}
	holds(t, j, dir, "a,c,e")
}

const (
	writerEnv = "NUAGE_TEST_JOURNAL_WRITER"
	writers   = 4
)

// pair is written under two names at once.
type pair struct {
	N   int
	Pad string
}

// TestWriter is the process that TestKilled kills: it tells what was acknowledged.
func TestWriter(t *testing.T) {
	dir := os.Getenv(writerEnv)
	if dir == "" {
		t.Skip("runs as a part of TestKilled")
	}
	j := mustOpen(t, dir)
	pad := strings.Repeat("x", 8000)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			a, b := fmt.Sprint("a", w), fmt.Sprint("b", w)
			var last pair
			if _, err := j.Get("pair", a, &last); err != nil {
				t.Error(err)
				return
			}
			for n := last.N + 1; ; n++ {
				if err := j.Apply(Set("pair", a, pair{n, pad}), Set("pair", b, pair{n, pad})); err != nil {
					t.Error(err)
					return
				}
				fmt.Printf("ack %d %d\n", w, n)
			}
		})
	}
	wg.Wait()
}

// What was acknowledged survives the process, whenever it is killed, also while the file
// is rewritten; what was not is there as a whole or not at all.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	var acked [writers]int
	for round := range 8 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestWriter$")
		cmd.Env = append(os.Environ(), writerEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		var kill *time.Timer
		for lines.Scan() {
			var w, n int
			if _, err := fmt.Sscanf(lines.Text(), "ack %d %d", &w, &n); err != nil {
				t.Errorf("the writer says %q", lines.Text())
				break
			}
			acked[w] = n
			if kill == nil {
				kill = time.AfterFunc(time.Duration(20+37*round)*time.Millisecond, func() { cmd.Process.Kill() })
			}
		}
		cmd.Process.Kill()
		cmd.Wait()
		j, err := Open(dir)
		if err != nil || j.Moved() != "" {
			t.Fatalf("round %d: %v, moved %q", round, err, j.Moved())
		}
		for w := range writers {
			var a, b pair
			if _, err := j.Get("pair", fmt.Sprint("a", w), &a); err != nil {
				t.Error(err)
			}
			if _, err := j.Get("pair", fmt.Sprint("b", w), &b); err != nil {
				t.Error(err)
			}
			if a != b || a.N != acked[w] && a.N != acked[w]+1 {
				t.Errorf("round %d, writer %d: %d and %d are there, %d was acknowledged", round, w, a.N, b.N, acked[w])
			}
		}
		j.Close()
	}
	total := 0
	for _, n := range acked {
		total += n
	}
	if total*16_000 < 2*minimum {
		t.Errorf("only %d writes: the file was hardly ever rewritten", total)
	}
	t.Logf("%d writes", total)
}
