package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	fileName = "journal.log"
	// A predecessor that is being stopped releases its lock within this.
	lockWait = 2 * time.Second
)

// Open opens the journal in dir, making both (0700, 0600) if need be. A journal that
// another process has open is ErrLocked after two seconds.
//
// A last write that a crash has cut off was never acknowledged, and is not there. Any other
// damage is survived, whatever it is: the file is put aside, see Moved, and a new one holds
// what was last written behind the damage. What was last written before it is left out,
// even if it is whole: a newer value may be what was lost, and to a record that is out of
// date ("begun" of what has long been made, and is in use) none is to be preferred.
func Open(dir string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	path := filepath.Join(dir, fileName)
	d, err := lock(dir)
	if err != nil {
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	j := &Journal{log: &log{dir: d, path: path}}
	if err := j.load(); err != nil {
		if j.log.file != nil {
			j.log.file.Close()
		}
		d.Close()
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	return j, nil
}

func lock(dir string) (*os.File, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(lockWait); ; time.Sleep(lockWait / 100) {
		err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return d, nil
		}
		if (err == unix.EWOULDBLOCK || err == unix.EINTR) && time.Now().Before(deadline) {
			continue
		}
		d.Close()
		if err == unix.EWOULDBLOCK {
			return nil, fmt.Errorf("%w: is another nuage-plugin running with this state directory?", ErrLocked)
		}
		return nil, os.NewSyscallError("flock", err)
	}
}

// load reads the file, and leaves one that holds nothing else.
func (j *Journal) load() error {
	l := j.log
	var err error
	l.file, err = os.OpenFile(l.path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		j.records = table{}
		return l.rewrite(j.records)
	}
	if err != nil {
		return err
	}
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	if err := l.file.Chmod(0o600); err != nil {
		return err
	}
	c, err := read(l.file)
	if err != nil {
		return err
	}
	j.records, l.next, l.size = c.records, c.next, c.size
	if c.damaged {
		return j.moveAside()
	}
	if l.rewrite(j.records) != nil { // a full disk: the file as it is does as well
		l.limit = 2 * l.size
		l.suspect = l.suspect || l.file.Truncate(l.size) != nil
	}
	return nil
}

// moveAside gives the damaged file another name, while its own goes over to the new one:
// at no time is there none.
func (j *Journal) moveAside() error {
	l := j.log
	moved := fmt.Sprintf("%s.corrupt-%s", l.path, time.Now().UTC().Format("20060102T150405.000000000"))
	if err := os.Link(l.path, moved); err != nil {
		return err
	}
	if err := l.rewrite(j.records); err != nil {
		if !l.suspect { // its own name is the damaged file's still
			_ = os.Remove(moved)
		}
		return err
	}
	j.moved = moved
	return nil
}
