package main

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
)

func TestLineWriterCuts(t *testing.T) {
	var out bytes.Buffer
	w := newLineWriter(&out)
	w.Write([]byte("short\n"))
	w.Write([]byte(strings.Repeat("x", 100<<10) + "\n"))
	w.Write([]byte("after\n"))
	w.close()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 || lines[0] != "short" || lines[2] != "after" || len(lines[1]) > maxLine+10 {
		t.Errorf("%d lines, the second of %d bytes", len(lines), len(lines[1]))
	}
}

// A reader that stops reading, as dockerd does, stops nobody.
func TestLineWriterDoesNotWait(t *testing.T) {
	r, out := io.Pipe()
	w := newLineWriter(out)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 3 * backlog {
			w.Write([]byte("line\n"))
		}
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("writing waits for a reader that does not read")
	}
	for in := bufio.NewScanner(r); in.Scan(); {
		if strings.Contains(in.Text(), "log lines dropped") {
			return
		}
	}
	t.Error("what was dropped is not said")
}
