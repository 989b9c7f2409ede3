package main

import (
	"fmt"
	"os"
	"testing"
)

// console lets a host be driven outside of a test: what would fail the test ends the
// program after everything was cleaned up.
type console struct {
	testing.TB // only for its unexported method: what is used is below
	cleanups   []func()
	failed     bool
}

func (c *console) Helper()           {}
func (c *console) Name() string      { return "bench" }
func (c *console) Failed() bool      { return c.failed }
func (c *console) Cleanup(f func())  { c.cleanups = append(c.cleanups, f) }
func (c *console) Skip(args ...any)  { c.Fatal(args...) }
func (c *console) Error(args ...any) { c.failed = true; fmt.Fprintln(os.Stderr, args...) }

func (c *console) Fatal(args ...any) {
	c.Error(args...)
	c.end()
	os.Exit(1)
}

func (c *console) Errorf(format string, args ...any) { c.Error(fmt.Sprintf(format, args...)) }
func (c *console) Fatalf(format string, args ...any) { c.Fatal(fmt.Sprintf(format, args...)) }
func (c *console) Logf(format string, args ...any)   { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (c *console) end() {
	for len(c.cleanups) > 0 {
		last := len(c.cleanups) - 1
		f := c.cleanups[last]
		c.cleanups = c.cleanups[:last]
		f()
	}
}
