package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plugins", "nuage.sock")
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	if _, err := listen(path); err == nil || !strings.Contains(err.Error(), "another nuage already answers") {
		t.Errorf("listening beside a living one: %v", err)
	}
	l.Close()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("closing took the path away from whoever comes next: %v", err)
	}
	again, err := listen(path)
	if err != nil {
		t.Fatalf("a stale socket is not replaced: %v", err)
	}
	again.Close()
}

// An older process that ends late must not take the path of its successor.
func TestListenSuccessor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nuage.sock")
	first, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	second, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	first.Close()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the successor's socket is gone: %v", err)
	}
	c.Close()
}
