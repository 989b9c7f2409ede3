package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
)

// Places are the paths that differ between the managed plugin and the daemon.
type Places struct {
	// Sockets are where dockerd finds the drivers. The first is needed; the others may fail.
	Sockets []string
	// Run is the host's /run as this process sees it.
	Run string
	// State is the directory that outlives restarts, upgrades and reboots.
	State string
}

// In a managed plugin dockerd mounts the directory of its own socket at
// /run/docker/plugins, and config.json the host's /run at /host/run. The second socket
// is what makes the bare names `-d nuage --ipam-driver nuage` work: dockerd registers a
// managed plugin only under its full name, and finds this one as a plugin of the old kind.
func managedPlaces(state string) Places {
	return Places{
		Sockets: []string{"/run/docker/plugins/nuage.sock", "/host/run/docker/plugins/nuage.sock"},
		Run:     "/host/run",
		State:   or(state, "/state"),
	}
}

func hostPlaces(state string) Places {
	return Places{
		Sockets: []string{"/run/docker/plugins/nuage.sock"},
		Run:     "/run",
		State:   or(state, "/var/lib/nuage"),
	}
}

func or(v, def string) string {
	if v == "" {
		return def
	}
	return v
}

func (p Places) api() string    { return filepath.Join(p.Run, "nuage/api.sock") }
func (p Places) ovsdb() string  { return filepath.Join(p.Run, "openvswitch/db.sock") }
func (p Places) docker() string { return filepath.Join(p.Run, "docker.sock") }

// netns is where a container's network namespace is, which Docker calls by its path under
// /var/run.
func (p Places) netns(key string) string {
	if rest, ok := strings.CutPrefix(strings.TrimPrefix(key, "/var"), "/run/"); ok {
		return filepath.Join(p.Run, rest)
	}
	return key
}

// errAnswered is a socket that is another process's.
var errAnswered = errors.New("another nuage already answers there; stop it first (docker plugin ls; systemctl status nuage-plugin)")

// listen opens a unix socket that only root may use. A socket file that nobody answers
// on is left from an earlier life and is replaced; one that somebody answers on is not.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("socket %s: %w", path, errAnswered)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	// The mode must be right from the first moment on, not after a chmod.
	old := syscall.Umask(0o177)
	l, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	// Closing must not unlink: after an upgrade the path belongs to the next process.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return l, nil
}

// listenAlone listens on the API's socket, which one process of a host has, and waits while that is
// another: what the one has attached is nobody's to the other, who would take it off the switch.
// It is nil at ctx's end, and where there can be no such socket.
func listenAlone(ctx context.Context, path string, g *gate, log *logrus.Logger) net.Listener {
	for told := false; ctx.Err() == nil; {
		l, err := listen(path)
		if err == nil {
			return l
		}
		if !errors.Is(err, errAnswered) {
			log.WithError(err).Error("nuagectl will not work")
			return nil
		}
		g.closedBecause(err)
		if !told {
			told = true
			log.WithError(err).Error("waiting until it has ended, for a host has one nuage")
		}
		select {
		case <-ctx.Done():
		case <-time.After(again):
		}
	}
	return nil
}

// serve answers on l until it is closed.
func serve(l net.Listener, h http.Handler, log *logrus.Logger) *http.Server {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10}
	go func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.WithError(err).WithField("socket", l.Addr()).Error("no longer listening")
		}
	}()
	return s
}
