package host

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"
)

// Ping is an endless ping out of a container, every 10 ms, that depends on nothing of
// Docker's: it runs in the container's network namespace, not in the container.
type Ping struct {
	h       *Host
	cmd     *exec.Cmd
	out     *bytes.Buffer
	stopped bool
}

// Loss is what a ping found.
type Loss struct {
	Sent, Received, Lost int
	// Longest is the longest time without an answer.
	Longest time.Duration
	// RTT is the mean time to an answer.
	RTT time.Duration
}

// Ping starts one from a container to an address. It waits for nothing.
func (h *Host) Ping(container, address string) *Ping {
	h.t.Helper()
	pid := strconv.Itoa(h.Inspect(container).State.Pid)
	p := &Ping{h: h, out: &bytes.Buffer{}}
	p.cmd = h.command(filepath.Join(root(), "test/fleet/exec"), strconv.Itoa(h.n), "nsenter", "-t", pid, "-n",
		h.Program("app"), "ping", "-q", "-c", "0", "-i", "10ms", "-W", "1s", address)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if !p.stopped {
			p.interrupt()
		}
	})
	return p
}

var summary = regexp.MustCompile(`sent=(\d+) received=(\d+) lost=(\d+) longest=(\S+) rtt=(\S+)`)

// interrupt ends the ping. Its process group gets the signal: the program itself is
// behind a forked nsenter. Wait returns once the last of them has closed its output.
func (p *Ping) interrupt() {
	p.stopped = true
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGINT)
	p.cmd.Wait() // the status is nsenter's, the summary tells
}

// Stop ends the ping and returns what it found.
func (p *Ping) Stop() Loss {
	p.h.t.Helper()
	p.interrupt()
	m := summary.FindStringSubmatch(p.out.String())
	if m == nil {
		p.h.t.Fatalf("ping ended without a summary: %s", p.out)
	}
	var l Loss
	var err error
	if _, err = fmt.Sscan(m[1]+" "+m[2]+" "+m[3], &l.Sent, &l.Received, &l.Lost); err == nil {
		l.Longest, err = time.ParseDuration(m[4])
	}
	if err == nil {
		l.RTT, err = time.ParseDuration(m[5])
	}
	if err != nil {
		p.h.t.Fatal(err)
	}
	return l
}

// NoLoss ends the ping and fails the test if the way was broken meanwhile, or hardly
// anything was sent. A gap of 30 ms loses three packets in a row; one stray packet in 500 is
// what a switch without a processor of its own loses beside other work.
func (p *Ping) NoLoss(during string) {
	p.h.t.Helper()
	l := p.Stop()
	if l.Lost > 1+l.Sent/500 || l.Sent < 20 {
		p.h.t.Errorf("ping during %s: %+v, want none lost", during, l)
	}
}
