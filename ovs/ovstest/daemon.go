package ovstest

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
)

// daemon is a running process of Open vSwitch.
type daemon struct {
	name string
	cmd  *exec.Cmd
	out  bytes.Buffer  // what it wrote before its log file was open; read after done
	done chan struct{} // closed when it has ended
	err  error         // how it ended; read after done
}

// launch starts a daemon in the foreground of a thread of its own. The kernel sends a
// process its death signal when the *thread* that forked it ends, so that thread stays
// until the process is gone; it also carries the network namespace.
func (o *OVS) launch(name string, args ...string) *daemon {
	o.t.Helper()
	args = append(args, "--pidfile="+filepath.Join(o.RunDir, name+".pid"),
		"--log-file="+filepath.Join(o.RunDir, name+".log"), "-vconsole:off", "-vsyslog:off")
	d := &daemon{name: name, cmd: exec.Command(name, args...), done: make(chan struct{})}
	d.cmd.Env = o.env()
	d.cmd.Stdout, d.cmd.Stderr = &d.out, &d.out
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		defer close(d.done)
		runtime.LockOSThread()
		if o.conf.netns == "" {
			defer runtime.UnlockOSThread()
		} else if err := enter(o.conf.netns); err != nil { // the thread ends with the goroutine
			started <- err
			return
		}
		err := d.cmd.Start()
		started <- err
		if err == nil {
			d.err = d.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		o.t.Fatalf("ovstest: %s: %v", name, err)
	}
	return d
}

func enter(path string) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	return netns.Set(ns)
}

// end ends the process and waits for it; what does not obey is killed. It returns nil,
// the daemon that is left.
func (d *daemon) end(sig syscall.Signal) *daemon {
	if d == nil {
		return nil
	}
	d.cmd.Process.Signal(sig)
	select {
	case <-d.done:
	case <-time.After(5 * time.Second):
		d.cmd.Process.Kill()
		<-d.done
	}
	return nil
}
