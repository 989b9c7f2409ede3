package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	dockerSocket  = "/run/docker.sock"
	linkSocket    = "/run/docker/plugins/nuage.sock" // which makes the bare name nuage work
	managedPlugin = "nuage-plugin:latest"
	// lookTime bounds one question of doctor's.
	lookTime = 5 * time.Second
)

// engine is what Docker says of itself and of its plugins; none of a Docker that does not answer.
type engine struct {
	answers bool
	plugins []struct {
		Name    string
		Enabled bool
	}
}

// managed is the plugin of this name.
func (e engine) managed(name string) (installed, enabled bool) {
	for _, p := range e.plugins {
		if p.Name == name {
			return true, p.Enabled
		}
	}
	return false, false
}

func (d *doctor) checkDocker() (e engine) {
	var version struct{ Version, APIVersion string }
	err := d.ask(dockerSocket, http.MethodGet, "/version", &version)
	if err == nil {
		err = d.ask(dockerSocket, http.MethodGet, "/plugins", &e.plugins)
	}
	if err != nil {
		d.problem("docker", "systemctl start docker; journalctl -u docker says why it does not start", "Docker does not answer: %v", err)
		return e
	}
	e.answers = true
	_, minor, _ := strings.Cut(version.APIVersion, ".")
	if n, err := strconv.Atoi(minor); err == nil && strings.HasPrefix(version.APIVersion, "1.") && n < 41 {
		d.problem("docker", "upgrade Docker", "Docker %s is older than 20.10", version.Version)
		return e
	}
	d.ok("docker", "Docker %s answers at %s", version.Version, dockerSocket)
	return e
}

// checkPlugin looks whether the plugin runs, once, and answers.
func (d *doctor) checkPlugin(e engine) {
	installed, enabled := e.managed(managedPlugin)
	if there, _ := e.managed("nuage:latest"); there {
		d.problem("plugin", "docker plugin rm -f nuage, and install it as "+managedPlugin,
			"a managed plugin is called nuage:latest, which hides the driver's name nuage")
	}
	running := processes("nuage-plugin")
	switch {
	case len(running) > 1:
		d.problem("plugin", "keep one: docker plugin disable -f nuage-plugin, or systemctl disable --now nuage-plugin",
			"nuage-plugin runs %d times on this host, which needs one, as managed plugin or as daemon", len(running))
	case len(running) == 1 && d.process.ID == 0:
		d.problem("plugin", d.process.anew()+", or systemctl restart nuage-plugin", "nuage-plugin runs as process %d, but nobody is at its socket %s", running[0], d.api.name)
	case len(running) == 1:
	case installed && !enabled:
		d.problem("plugin", "docker plugin enable nuage-plugin", "the managed plugin %s is disabled", managedPlugin)
	case installed:
		d.problem("plugin", "journalctl -u docker | grep plugin= says why it ends", "the managed plugin %s is enabled, but does not run", managedPlugin)
	case e.answers:
		d.problem("plugin", "make up, dist/plugin install, or the daemon: systemctl enable --now nuage-plugin",
			"nuage runs neither as managed plugin (%s is not installed) nor as daemon", managedPlugin)
	default:
		d.problem("plugin", "start Docker, whose managed plugin it may be, or the daemon: systemctl start nuage-plugin", "nuage does not run")
	}
	var s status
	ctx, cancel := context.WithTimeout(d.ctx, lookTime)
	defer cancel()
	if err := d.api.get(ctx, "/nuage/v1/status", nil, &s); err != nil {
		if d.process.ID != 0 {
			d.problem("plugin", d.process.anew(), "process %d of nuage-plugin does not say its status: %v", d.process.ID, err)
		}
		return
	}
	d.status = &s
	d.ok("plugin", "nuage %s runs as %s, process %d", s.Version, d.process.kind(), d.process.ID)
}

// checkLink asks the driver as Docker does that looks for a driver called nuage.
func (d *doctor) checkLink() {
	if d.process.ID == 0 {
		return
	}
	var said struct{ Implements []string }
	switch err := d.ask(linkSocket, http.MethodPost, "/Plugin.Activate", &said); {
	case err != nil:
		d.problem("link", d.process.anew(), "the bare name nuage does not work: nobody answers at %s: %v", linkSocket, err)
	case !slices.Contains(said.Implements, "NetworkDriver") || !slices.Contains(said.Implements, "IpamDriver"):
		d.problem("link", "remove the other plugin, then "+d.process.anew(), "who answers at %s is not nuage: it implements %s", linkSocket, strings.Join(said.Implements, ", "))
	default:
		d.ok("link", "the driver answers by the name nuage, at %s", linkSocket)
	}
}

// checkMounts looks whether the managed plugin sees what Docker mounts under /run: without
// that it cannot enter the network namespaces of containers that have no Docker network.
func (d *doctor) checkMounts() {
	if d.process.ID == 0 || d.process.Daemon {
		return
	}
	mounts := "/proc/self/mountinfo"
	if docker := processes("dockerd"); len(docker) == 1 {
		mounts = process{ID: docker[0]}.path("mountinfo")
	}
	host, err := propagation(mounts, "/run")
	inside, err2 := propagation(d.process.path("mountinfo"), "/host/run")
	switch {
	case err != nil || err2 != nil:
		d.note("mounts", "cannot be looked at: %v", errors.Join(err, err2))
	case host["shared"] == "":
		d.problem("mounts", "mount --make-rshared /run, then "+d.process.anew(), "/run is no shared mount: containers started with --net=none cannot be attached")
	case inside["master"] != host["shared"]: // where /run is not shared, Docker has it follow another mount
		d.problem("mounts", d.process.anew(), "/run became a shared mount after the plugin was enabled, which does not see what is mounted there since")
	default:
		d.ok("mounts", "/run is a shared mount, and the plugin sees what is mounted there")
	}
}

// propagation are the peer groups of the mount that has a path: "shared", with whom it shares
// what is mounted there, and "master", from whom it receives it.
func propagation(mountinfo, path string) (groups map[string]string, err error) {
	text, err := os.ReadFile(mountinfo)
	if err != nil {
		return nil, err
	}
	best := ""
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		end := slices.Index(words, "-")
		if len(words) < 6 || end < 6 {
			continue
		}
		// The last of those at one place is the one that is seen.
		if at := words[4]; (path == at || at == "/" || strings.HasPrefix(path, at+"/")) && len(at) >= len(best) {
			best, groups = at, map[string]string{}
			for _, field := range words[6:end] {
				name, group, _ := strings.Cut(field, ":")
				groups[name] = group
			}
		}
	}
	return groups, nil
}

// ask makes one request of an API on a unix socket. An answer that is no success is an error.
func (d *doctor) ask(socket, method, path string, into any) error {
	ctx, cancel := context.WithTimeout(d.ctx, lookTime)
	defer cancel()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, bytes.NewReader(nil))
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		if inner := errors.Unwrap(err); inner != nil {
			err = inner
		}
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", path, resp.Status)
	}
	return json.Unmarshal(text, into)
}

// process is the plugin that is at the API's socket.
type process struct {
	ID     int
	Daemon bool
	State  string            // its directory, as it sees it
	Env    map[string]string // its settings
}

func (p process) kind() string {
	if p.Daemon {
		return "daemon"
	}
	return "managed plugin"
}

// anew is how to start it again.
func (p process) anew() string {
	if p.Daemon {
		return "systemctl restart nuage-plugin (containers go on meanwhile)"
	}
	return "docker plugin disable -f nuage-plugin && docker plugin enable nuage-plugin (containers go on meanwhile)"
}

func (p process) path(file string) string { return filepath.Join("/proc", strconv.Itoa(p.ID), file) }

// outside is a path of the process's own as it is seen from here.
func (p process) outside(path string) string { return filepath.Join(p.path("root"), path) }

// findProcess is the process that listens on the socket.
func findProcess(socket string) (p process) {
	c, err := net.DialTimeout("unix", socket, lookTime)
	if err != nil {
		return p
	}
	defer c.Close()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return p
	}
	_ = raw.Control(func(fd uintptr) {
		if peer, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			p.ID = int(peer.Pid)
		}
	})
	args, _ := os.ReadFile(p.path("cmdline"))
	words := strings.Split(string(args), "\x00")
	p.Daemon = slices.Contains(words, "--host") || slices.Contains(words, "-host")
	p.State = "/state"
	if p.Daemon {
		p.State = "/var/lib/nuage"
	}
	for i, w := range words {
		if name, value, cut := strings.Cut(strings.TrimLeft(w, "-"), "="); name == "state" && cut {
			p.State = value
		} else if name == "state" && i+1 < len(words) {
			p.State = words[i+1]
		}
	}
	p.Env = map[string]string{}
	env, _ := os.ReadFile(p.path("environ"))
	for v := range strings.SplitSeq(string(env), "\x00") {
		if name, value, _ := strings.Cut(v, "="); strings.HasPrefix(name, "NUAGE_") {
			p.Env[name] = value
		}
	}
	return p
}

// processes are those of a name in this host's network: those of other hosts are elsewhere.
func processes(called string) (ids []int) {
	here, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return nil
	}
	all, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, file := range all {
		name, err := os.ReadFile(file)
		if err != nil || strings.TrimSpace(string(name)) != called {
			continue
		}
		if net, err := os.Readlink(filepath.Join(filepath.Dir(file), "ns/net")); err == nil && net == here {
			id, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			ids = append(ids, id)
		}
	}
	return ids
}
