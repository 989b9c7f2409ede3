package journal

import (
	"bufio"
	"errors"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	// A file is rewritten when it has grown to so many times the size it had when it was
	// rewritten last, but not while it is small.
	growth  = 4
	minimum = 1 << 20
)

// log is the file. What is in it up to size is on disk; nothing that counts is behind.
type log struct {
	dir  *os.File // whoever has the journal open has it locked
	path string
	file *os.File
	next uint64 // the number of the next line
	size int64  // where it goes
	// limit is the size at which the file is rewritten.
	limit int64
	// suspect is a file of which nobody knows what the disk has: the kernel tells once that
	// it could not write. It is rewritten before anything is added.
	suspect bool
}

// append adds a commit. t is what the file holds without it, and what it holds after an error.
func (l *log) append(writes []byte, t table) error {
	if l.suspect {
		if err := l.rewrite(t); err != nil {
			return err
		}
	}
	text := line(l.next, writes)
	_, err := l.file.WriteAt(text, l.size)
	if err == nil {
		if err = datasync(l.file); err == nil {
			l.next++
			l.size += int64(len(text))
			return nil
		}
		l.suspect = true
	}
	if l.file.Truncate(l.size) != nil {
		l.suspect = true
	}
	if l.suspect {
		_ = l.rewrite(t) // else the next write tries it again
	}
	return err
}

// trim rewrites a file that has grown.
func (l *log) trim(t table) {
	if l.size > l.limit && l.rewrite(t) != nil {
		l.limit = 2 * l.size // there is no room: the file as it is does as well
	}
}

// rewrite replaces the file by one that holds t and nothing else. A crash leaves the one
// or the other. After an error the file is the old one, or suspect.
func (l *log) rewrite(t table) error {
	temporary := l.path + ".new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temporary, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	next, size, err := fill(f, t)
	if err == nil {
		l.suspect = true // until it is known which of the two a crash would leave
		err = os.Rename(temporary, l.path)
	}
	if err != nil {
		f.Close()
		_ = os.Remove(temporary) // the next attempt does it again
		return err
	}
	if l.file != nil {
		l.file.Close()
	}
	l.file, l.next, l.size, l.limit = f, next, size, max(minimum, growth*size)
	if err := l.dir.Sync(); err != nil {
		return err
	}
	l.suspect = false
	return nil
}

// fill writes t to a new file. The first line is always there: a file without is damaged.
func fill(f *os.File, t table) (next uint64, size int64, err error) {
	w := bufio.NewWriterSize(f, 256<<10)
	add := func(writes []byte) {
		n, _ := w.Write(line(next, writes)) // Flush tells the error
		next++
		size += int64(n)
	}
	add(nil)
	for _, kind := range slices.Sorted(maps.Keys(t)) {
		for _, id := range slices.Sorted(maps.Keys(t[kind])) {
			text, err := encode([]write{{kind, id, t[kind][id]}})
			if err != nil {
				return 0, 0, err
			}
			add(text)
		}
	}
	if err := w.Flush(); err != nil {
		return 0, 0, err
	}
	return next, size, datasync(f)
}

func (l *log) close() error {
	return errors.Join(l.file.Close(), l.dir.Close())
}

func datasync(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
