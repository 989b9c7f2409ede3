package main

import (
	"bytes"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

const (
	// logTime has milliseconds, since dockerd's own stamp of a plugin's line has seconds only.
	logTime = "2006-01-02T15:04:05.000Z07:00"
	// dockerd gives up on a plugin's output at a line of 64 KiB, for good: from then on the
	// pipe fills, and whoever writes to it hangs.
	maxLine = 8 << 10
	// maxLogged is how much of a call's body is logged.
	maxLogged = 2 << 10
	backlog   = 1024
)

// lineWriter passes lines on without ever making the writer wait: long ones are cut, and
// what comes faster than it is read is dropped and counted.
type lineWriter struct {
	lines   chan []byte
	dropped atomic.Int64
	done    chan struct{}
}

func newLineWriter(out io.Writer) *lineWriter {
	w := &lineWriter{lines: make(chan []byte, backlog), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for line := range w.lines {
			out.Write(line)
			if n := w.dropped.Swap(0); n > 0 {
				fmt.Fprintf(out, "level=warning msg=\"log lines dropped\" count=%d\n", n)
			}
		}
	}()
	return w
}

// Write takes one line. It always succeeds.
func (w *lineWriter) Write(p []byte) (int, error) {
	line := bytes.Clone(p)
	if len(line) > maxLine {
		line = append(line[:maxLine:maxLine], " … cut\n"...)
	}
	select {
	case w.lines <- line:
	default:
		w.dropped.Add(1)
	}
	return len(p), nil
}

// close writes out what is left, for a second at most. Nothing may be written afterwards.
func (w *lineWriter) close() {
	close(w.lines)
	select {
	case <-w.done:
	case <-time.After(time.Second):
	}
}

// logged is the beginning of a call's body, for the log.
func logged(body []byte) string {
	if len(body) > maxLogged {
		return string(body[:maxLogged]) + "…"
	}
	return string(body)
}
