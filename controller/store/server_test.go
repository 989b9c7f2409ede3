package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"nuage/controller/tenant"
)

// run starts a store that may fail, and returns what Ready says once it has decided.
func run(t testing.TB, c Config) (s *Store, ready error) {
	t.Helper()
	log := logrus.New()
	log.SetOutput(t.Output())
	c.Log = log
	s = New(c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { s.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return s, decided(s)
}

// decided waits until the store has served or failed, and is what Ready says then.
func decided(s *Store) error {
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		tried := s.status.session != nil || s.status.err != nil
		s.mu.Unlock()
		if tried {
			break
		}
	}
	return s.Ready()
}

// TestListensNowhere holds that the process has no TCP socket but those it had before.
func TestListensNowhere(t *testing.T) {
	before := tcpSockets(t)
	start(t, Config{Dir: t.TempDir()})
	for inode := range tcpSockets(t) {
		if !before[inode] {
			t.Errorf("the store has a TCP socket, inode %s", inode)
		}
	}
}

// tcpSockets are the inodes of this process's TCP sockets.
func tcpSockets(t *testing.T) map[string]bool {
	mine := map[string]bool{}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, "socket:[") {
			mine[strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")] = true
		}
	}
	found := map[string]bool{}
	for _, file := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		table, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		for _, line := range strings.Split(string(table), "\n") {
			if f := strings.Fields(line); len(f) > 9 && mine[f[9]] {
				found[f[9]] = true
			}
		}
	}
	return found
}

func TestDirectoryInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, stop := start(t, Config{Dir: dir})
	second, err := run(t, Config{Dir: dir})
	want := fmt.Sprintf("%s is in use by process %d", dir, os.Getpid())
	if !errors.Is(err, tenant.ErrUnavailable) || !strings.Contains(err.Error(), want) {
		t.Errorf("want %q, got %v", want, err)
	}
	began := time.Now()
	if _, err := second.CreateEnterprise(context10(t), tenant.Enterprise{Name: "E"}); !errors.Is(err, tenant.ErrUnavailable) || time.Since(began) > time.Second {
		t.Errorf("a write to a store that is not there: %v after %s", err, time.Since(began))
	}
	stop()
	waitReady(t, second)
}

func TestDirectoryCannotBe(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := run(t, Config{Dir: dir})
	if !errors.Is(err, tenant.ErrUnavailable) || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("a file instead of the directory: %v", err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	waitReady(t, s)
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the directory's mode: %v, %v", st, err)
	}
}

// needRoot fails where the test cannot mount, unless the run is one without root.
func needRoot(t *testing.T) {
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("NUAGE_TEST_ROOT") == "0" {
		t.Skip("needs root to mount a small disk")
	}
	t.Fatal("needs root to mount a small disk (NUAGE_TEST_ROOT=0 skips this)")
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=400m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	fill := func(mb int64) {
		if err := unix.Fallocate(int(filler.Fd()), 0, 0, mb<<20); err != nil {
			t.Fatal(err)
		}
	}
	empty := func() {
		if err := filler.Truncate(0); err != nil {
			t.Fatal(err)
		}
	}
	fill(250)
	s, err := run(t, Config{Dir: filepath.Join(dir, "store")})
	if err == nil || !strings.Contains(err.Error(), "the disk is nearly full") {
		t.Errorf("starting on a full disk: %v", err)
	}
	empty()
	waitReady(t, s)
	ctx := context10(t)
	if _, err := s.CreateEnterprise(ctx, tenant.Enterprise{Name: "before"}); err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	fill(int64(st.Bavail)*st.Bsize>>20 - 1)
	for s.Ready() == nil {
		if ctx.Err() != nil {
			t.Fatal("a disk that fills up is not noticed")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := s.CreateEnterprise(ctx, tenant.Enterprise{Name: "during"}); !errors.Is(err, tenant.ErrUnavailable) || !strings.Contains(err.Error(), "nearly full") {
		t.Errorf("a write to a full disk: %v", err)
	}
	empty()
	waitReady(t, s)
	if _, err := s.CreateEnterprise(ctx, tenant.Enterprise{Name: "after"}); err != nil {
		t.Error(err)
	}
}

// TestDamage damages what etcd has written: the store says so and lives on. A repaired
// database serves again in the same process; of a broken log etcd lets go only when the
// process ends, and Ready says that.
func TestDamage(t *testing.T) {
	for _, c := range []struct {
		part     string
		recovers bool
	}{{"snap/db", true}, {"wal/*.wal", false}} {
		t.Run(filepath.Base(c.part), func(t *testing.T) {
			dir := t.TempDir()
			s, stop := start(t, Config{Dir: dir})
			mustPath(t, s, spec("D", "10.0.0.0/24"))
			stop()
			files, _ := filepath.Glob(filepath.Join(dir, "etcd/member", c.part))
			file := files[len(files)-1]
			good, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			bad := append([]byte{}, good...)
			for i := range 8192 {
				bad[i] ^= 0x5a
			}
			if err := os.WriteFile(file, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			again, err := run(t, Config{Dir: dir})
			if !errors.Is(err, tenant.ErrUnavailable) {
				t.Fatalf("Ready with damaged data: %v", err)
			}
			goroutines := runtime.NumGoroutine()
			time.Sleep(time.Second) // several attempts
			if err := again.Ready(); !strings.Contains(err.Error(), "etcd cannot read its data") || !strings.Contains(err.Error(), dir) {
				t.Errorf("Ready with damaged data: %v", err)
			}
			if n := runtime.NumGoroutine(); n > goroutines {
				t.Errorf("each attempt leaves goroutines behind: %d, then %d", goroutines, n)
			}
			if err := os.WriteFile(file, good, 0o600); err != nil {
				t.Fatal(err)
			}
			if !c.recovers {
				if err := unready(again, "restart the plugin"); err != nil {
					t.Error(err)
				}
				return
			}
			waitReady(t, again)
			if n := len(mustRead(t, again).Subnets); n != 1 {
				t.Errorf("%d subnets after the repair", n)
			}
		})
	}
}

// TestEtcdEndsItself: what etcd answers with the end of the process, here ends etcd only,
// and it is started again.
func TestEtcdEndsItself(t *testing.T) {
	t.Parallel()
	s, err := run(t, Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	p := mustPath(t, s, spec("D", "10.0.0.0/24"))
	ses, err := s.acquire(context10(t))
	if err != nil {
		t.Fatal(err)
	}
	go ses.client.GetLogger().Fatal("failed to save", zap.Error(errors.New("input/output error")))
	ses.release()
	if err := unready(s, "failed to save: input/output error"); err != nil {
		t.Error(err)
	}
	waitReady(t, s)
	if again := mustPath(t, s, spec("D", "10.0.0.0/24")); again != p {
		t.Errorf("after the restart: %+v, before: %+v", again, p)
	}
}

// TestQuota: a database full of history refuses writes, is cleared, and takes them again.
func TestQuota(t *testing.T) {
	old := quota
	quota = 2 << 20
	s, err := run(t, Config{Dir: t.TempDir()})
	quota = old
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	e, err := s.CreateEnterprise(ctx, tenant.Enterprise{Name: "E"})
	for i := 0; err == nil; i++ {
		if i == 10000 {
			t.Fatal("the quota is never reached")
		}
		e.Description = fmt.Sprintf("%04d", i) + strings.Repeat("x", 4000)
		e, err = s.UpdateEnterprise(ctx, e)
	}
	if !errors.Is(err, tenant.ErrUnavailable) || !strings.Contains(err.Error(), "database space exceeded") {
		t.Errorf("a write above the quota: %v", err)
	}
	for {
		if _, err = s.CreateEnterprise(ctx, tenant.Enterprise{Name: "F"}); err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the quota is not relieved: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// unready waits until Ready says the excerpt.
func unready(s *Store, excerpt string) error {
	var err error
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err = s.Ready(); err != nil && strings.Contains(err.Error(), excerpt) && errors.Is(err, tenant.ErrUnavailable) {
			return nil
		}
	}
	return fmt.Errorf("the store does not say %q but: %v", excerpt, err)
}

// TestCrash kills a process in the middle of its writes: what it has reported as written
// is there afterwards, and nothing half-made is.
func TestCrash(t *testing.T) {
	if dir := os.Getenv("STORE_TEST_CRASH"); dir != "" {
		crash(t, dir)
	}
	t.Parallel()
	dir := t.TempDir()
	seen := map[string]bool{}
	for round := range 3 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestCrash$")
		cmd.Env = append(os.Environ(), "STORE_TEST_CRASH="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		written := 0
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if id, ok := strings.CutPrefix(lines.Text(), "written "); ok {
				seen[id] = true
				if written++; written == 100+50*round {
					cmd.Process.Signal(syscall.SIGKILL)
				}
			} else {
				t.Log(lines.Text())
			}
		}
		cmd.Wait()
		if written < 100 {
			t.Fatalf("only %d writes", written)
		}
	}
	s, _ := start(t, Config{Dir: dir})
	s.Feed().View(func(st *tenant.State) {
		for id := range seen {
			if st.Vports[id] == nil {
				t.Errorf("vport %s is lost", id)
			}
		}
		bound := 0
		for _, l := range st.Leases {
			if l.State == tenant.LeaseBound {
				bound++
				if st.Vports[l.VportID] == nil {
					t.Errorf("%s is bound to no vport", l.ID)
				}
			}
		}
		if bound != len(st.Vports) {
			t.Errorf("%d vports have %d leases", len(st.Vports), bound)
		}
	})
}

// crash writes vports until it is killed.
func crash(t *testing.T, dir string) {
	s, _ := start(t, Config{Dir: dir})
	sub := mustPath(t, s, spec("D", "10.0.0.0/16")).Subnet
	next := sub.Gateway
	s.Feed().View(func(st *tenant.State) {
		for _, l := range st.Leases {
			if next.Less(l.Address) {
				next = l.Address
			}
		}
	})
	for {
		next = next.Next()
		v := newVport(sub, next.String())
		if _, err := s.BindVport(context.Background(), v); err != nil {
			t.Fatal(err)
		}
		fmt.Println("written", v.ID)
	}
}

// TestEndpoints: a store on another's etcd sees what happens there, also while it was
// away, says when it is away, and comes back by itself.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, stop := start(t, Config{Dir: dir})
	far, err := run(t, Config{Endpoints: []string{"unix://" + filepath.Join(dir, socketName)}})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context10(t)
	p := mustPath(t, s, spec("D", "10.0.1.0/24"))
	if found, err := far.EnsurePath(ctx, spec("D", "10.0.1.0/24")); err != nil || found != p {
		t.Errorf("the far store finds %+v, %v", found, err)
	}
	v := newVport(p.Subnet, "10.0.1.5")
	if _, err := far.BindVport(ctx, v); err != nil {
		t.Fatal(err)
	}
	sub := far.Feed().Subscribe()
	defer sub.Close()
	sub.Take()
	stop()
	began := time.Now()
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := far.EnsurePath(short, spec("E", "10.0.1.0/24")); !errors.Is(err, tenant.ErrUnavailable) || time.Since(began) > time.Second {
		t.Errorf("a write while etcd is away: %v after %s", err, time.Since(began))
	}
	if err := unready(far, ""); err != nil {
		t.Error(err)
	}
	far.Feed().View(func(st *tenant.State) {
		if st.Vports[v.ID] == nil {
			t.Error("the state is gone while etcd is away")
		}
	})
	back, _ := start(t, Config{Dir: dir})
	if err := back.DeleteVport(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	waitReady(t, far)
	if err := far.catchUpNow(ctx); err != nil {
		t.Fatal(err)
	}
	far.Feed().View(func(st *tenant.State) {
		if st.Vports[v.ID] != nil {
			t.Error("a vport that was removed meanwhile is still shown")
		}
	})
	if keys := sub.Take(); len(keys) == 0 {
		t.Error("the subscription was told nothing")
	}
}
