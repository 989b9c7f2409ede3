package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// minSpace is how much disk must be free: etcd ends itself when a write of its log fails.
const minSpace = 160 << 20

// lockDir keeps other processes out of dir: etcd itself would wait for them without end.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 20))
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s is in use by process %s", dir, strings.TrimSpace(string(holder)))
		}
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintln(f, os.Getpid())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// diskSpace is an error while the disk of dir is nearly full.
func diskSpace(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < minSpace {
		return fmt.Errorf("%s: the disk is nearly full: %d MB free, %d needed", dir, free>>20, minSpace>>20)
	}
	return nil
}

// errRuined is a start of etcd that ended in a panic or the wish to end the process: its
// data is damaged. errEnded is the same wish of a running etcd.
var (
	errRuined = errors.New("etcd cannot read its data")
	errEnded  = errors.New("etcd has ended itself")
)

// ruin remembers how etcd failed in this process. A start that fails so leaves goroutines
// behind, and perhaps locks, so it is not tried again and again on the same data.
type ruin struct {
	err   error
	print string
}

func (r *ruin) note(data string, err error) {
	r.err, r.print = fmt.Errorf("%s: %w", data, err), ""
	if errors.Is(err, errRuined) {
		r.print = fingerprint(data)
	}
}

// standing is why a start cannot work now: what failed still holds the data, which only
// the end of the process changes, or the data is what could not be read.
func (r *ruin) standing(data string) error {
	if r.err == nil {
		return nil
	}
	files, _ := filepath.Glob(data + "/member/wal/*.wal")
	for _, name := range append(files, data+"/member/snap/db") {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		f.Close()
		if err != nil {
			return fmt.Errorf("%w; if it needs repair, repair it, and restart the plugin", r.err)
		}
	}
	if fingerprint(data) == r.print {
		return fmt.Errorf("%w; repair it, or move %s away and restore a backup (nuagectl restore)", r.err, data)
	}
	return nil
}

// fingerprint changes when a file below data is added, removed or written.
func fingerprint(data string) string {
	var b strings.Builder
	filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			if info, err := d.Info(); err == nil {
				fmt.Fprintln(&b, path, info.Size(), info.ModTime().UnixNano())
			}
		}
		return nil
	})
	return b.String()
}
