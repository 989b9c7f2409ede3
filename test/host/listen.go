package host

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Send puts frames on the wire as the container's own processes would.
func (h *Host) Send(container string, frames ...[]byte) {
	h.t.Helper()
	h.send(container, frames)
}

// Storm sends frames again and again as fast as the container can, and returns how many.
func (h *Host) Storm(container string, d time.Duration, frames ...[]byte) int {
	h.t.Helper()
	out := h.send(container, frames, "-for", d.String())
	n, err := strconv.Atoi(strings.TrimPrefix(out, "sent "))
	if err != nil {
		h.t.Fatalf("a storm: %s", out)
	}
	return n
}

func (h *Host) send(container string, frames [][]byte, flags ...string) string {
	h.t.Helper()
	list := make([]string, len(frames))
	for i, f := range frames {
		list[i] = hex.EncodeToString(f)
	}
	return h.Exec(container, append(append([]string{"app", "send"}, flags...), "-hex", strings.Join(list, ","))...)
}

// Listener has all frames that a container receives, or all of an interface of the host.
type Listener struct {
	h   *Host
	cmd *exec.Cmd
	out transcript
}

// Listen begins to listen at a container's eth0, or, where container is empty, at an
// interface of the host; it ends with the test.
func (h *Host) Listen(container, iface string) *Listener {
	h.t.Helper()
	args := []string{strconv.Itoa(h.n)}
	sniff := []string{h.Program("app"), "sniff", "-x", "-d", "5m", "-I", "eth0"}
	if container != "" {
		args = append(args, "nsenter", "-t", strconv.Itoa(h.Inspect(container).State.Pid), "-n")
	} else {
		sniff = append(sniff, "-I", iface, "-out")
	}
	l := &Listener{h: h, cmd: h.command(filepath.Join(root(), "test/fleet/exec"), append(args, sniff...)...)}
	l.cmd.Stdout, l.cmd.Stderr = &l.out, &l.out
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := l.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		syscall.Kill(-l.cmd.Process.Pid, syscall.SIGINT)
		l.cmd.Wait() // it was ended
	})
	h.Eventually(20*time.Second, "listening", func() error {
		if !strings.HasPrefix(l.out.String(), "listening\n") {
			return errors.New(l.out.String())
		}
		return nil
	})
	return l
}

// Got is how many frames so far have the text somewhere in them, however wrapped.
func (l *Listener) Got(text string) int {
	n := 0
	for line := range strings.Lines(l.out.String()) {
		if strings.Contains(line, hex.EncodeToString([]byte(text))) {
			n++
		}
	}
	return n
}

// Await waits until a frame with the text has come, and fails the test if none does.
func (l *Listener) Await(text string) {
	l.h.t.Helper()
	l.h.Eventually(10*time.Second, "a frame with "+text, func() error {
		if l.Got(text) == 0 {
			return errors.New("none")
		}
		return nil
	})
}

// transcript is read while it is written.
type transcript struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *transcript) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *transcript) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
