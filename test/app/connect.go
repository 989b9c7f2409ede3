package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// connect opens TCP connections to what echoes for a while, a few at a time: a byte there, the
// byte back, closed. It prints as JSON how many came about and how many did not, how long all
// that took, the median and the 99th percentile of the time until a connection was open, and
// the last error.
func connect(args []string) error {
	f := flag.NewFlagSet("connect", flag.ContinueOnError)
	during := f.Duration("for", time.Second, "how long")
	n := f.Int("n", 4, "connections at a time")
	if err := parse(f, args, 1, "HOST:PORT"); err != nil {
		return err
	}
	var all sync.WaitGroup
	parts, begin := make([]connections, *n), time.Now()
	for i := range parts {
		all.Go(func() { parts[i].open(f.Arg(0), begin.Add(*during)) })
	}
	all.Wait()
	took := time.Since(begin)
	var sum connections
	var last string
	for _, p := range parts {
		sum.times, sum.failed = append(sum.times, p.times...), sum.failed+p.failed
		if p.err != nil {
			last = p.err.Error()
		}
	}
	if len(sum.times) == 0 {
		return fmt.Errorf("%s: none of %d connections came about: %s", f.Arg(0), sum.failed, last)
	}
	slices.Sort(sum.times)
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"Made": len(sum.times), "Failed": sum.failed, "Took": took,
		"P50": sum.times[len(sum.times)/2], "P99": sum.times[len(sum.times)*99/100], "Error": last})
}

// connections are what one of several has made, with the last error of those that failed.
type connections struct {
	times  []time.Duration
	failed int
	err    error
}

func (c *connections) open(to string, end time.Time) {
	for time.Now().Before(end) {
		if took, err := once(to); err != nil {
			c.failed, c.err = c.failed+1, err
		} else {
			c.times = append(c.times, took)
		}
	}
}

// once makes one connection and returns how long it took until it was open.
func once(to string) (took time.Duration, err error) {
	const patience = 3 * time.Second // what is lost is sent again after one
	begin := time.Now()
	c, err := net.DialTimeout("tcp4", to, patience)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	took = time.Since(begin)
	b := []byte{'?'}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	if _, err := c.Write(b); err != nil {
		return 0, err
	}
	_, err = c.Read(b)
	return took, err
}
