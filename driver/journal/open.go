package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	fileName = "journal.db"
	// A predecessor that is being stopped releases its lock within this.
	lockWait = 2 * time.Second
)

// Open opens the journal in dir, making both (0700, 0600) if need be. A file that another
// process has open is ErrLocked after two seconds. A file that cannot be read is moved
// aside, never deleted, and a new one begun: see Moved.
func Open(dir string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	path := filepath.Join(dir, fileName)
	db, err := open(path)
	moved := ""
	if errors.Is(err, errCorrupt) {
		moved = fmt.Sprintf("%s.corrupt-%s", path, time.Now().UTC().Format("20060102T150405.000000000"))
		if err := os.Rename(path, moved); err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		db, err = open(path)
	}
	if err != nil {
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	if err := settle(dir, path); err != nil {
		db.Close()
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	return &Journal{db: db, moved: moved}, nil
}

var errCorrupt = errors.New("the file is damaged")

func open(path string) (db *bbolt.DB, err error) {
	err = guarded(func() (err error) {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout:         lockWait,
			FreelistType:    bbolt.FreelistMapType,
			PreLoadFreelist: true,
		})
		return err
	})
	var system syscall.Errno
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("%w: is another nuage-plugin running with this state directory?", ErrLocked)
	case errors.As(err, &system): // full, read-only, forbidden: nothing is wrong with the file
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	if err := verify(db, path); err != nil {
		db.Close()
		return nil, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	return db, nil
}

// verify reads everything once, so that damage shows now and not in the middle of a verb.
// The size comes first: reading a mapped page beyond the file's end is a fault, and bbolt's
// own check reads in a goroutine that nobody can guard.
func verify(db *bbolt.DB, path string) error {
	return guarded(func() error {
		return db.View(func(tx *bbolt.Tx) error {
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			if info.Size() < tx.Size() {
				return fmt.Errorf("%d bytes of %d", info.Size(), tx.Size())
			}
			var first error
			for err := range tx.Check() { // to the end: the check waits for its reader
				if first == nil {
					first = err
				}
			}
			return first
		})
	})
}

// settle makes the file's mode and its very existence durable.
func settle(dir, path string) error {
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

type panicked struct{ reason any }

func (p panicked) Error() string { return fmt.Sprintf("damaged: %v", p.reason) }

// guarded turns bbolt's panics, and faults in its mapped file, into errors.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = panicked{p}
		}
	}()
	return f()
}
