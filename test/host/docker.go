package host

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// PluginName is the managed plugin's name.
const PluginName = "nuage-plugin:latest"

// Image is the test image: test/app and busybox.
const Image = "nuage-test:latest"

// LoadImages makes the test images in the host's Docker.
func (h *Host) LoadImages() {
	h.t.Helper()
	h.Run("test/app/image", "test")
	h.Run("test/app/image", "app")
}

// Status is `nuagectl status -o json`, of which tests look at a part.
type Status struct {
	Problems []string
	Host     string
	Store    struct {
		Ready           bool
		Revision        int64
		Following       int
		Serving, Joined string
		Error           string
	}
	Switch struct {
		Tunnel struct{ Port, Problem string }
	}
	Agent struct {
		Revision int64
		Flows    int
	}
	Endpoints              int
	HostsKnown, HostsAlive int
}

// Status is what the host's plugin says of itself, also when that is bad.
func (h *Host) Status() (Status, error) {
	var s Status
	out, err := h.Try("sh", "-c", "nuagectl status -o json 2>/dev/null || [ $? -eq 1 ]")
	if err == nil {
		err = json.Unmarshal([]byte(out), &s)
	}
	if err != nil {
		return s, fmt.Errorf("nuagectl status: %w: %s", err, out)
	}
	return s, nil
}

// InstallPlugin installs and enables the managed plugin as dist/plugin does, and returns
// when its store is up.
func (h *Host) InstallPlugin() {
	h.t.Helper()
	h.Build()
	h.Run(filepath.Join(treeDir("test"), "dist/plugin"), "install")
	h.StoreReady()
}

// Configure changes settings of the plugin, as NAME=VALUE, and enables it again.
func (h *Host) Configure(settings ...string) {
	h.t.Helper()
	h.Docker("plugin", "disable", "-f", PluginName)
	h.Docker(append([]string{"plugin", "set", PluginName}, settings...)...)
	h.Docker("plugin", "enable", PluginName)
}

// ForgetJoining is Configure for a host that has never joined: its certificate is gone. The
// plugin may be disabled already.
func (h *Host) ForgetJoining(settings ...string) {
	h.t.Helper()
	h.TryDocker("plugin", "disable", "-f", PluginName)
	h.Run("rm", "-rf", h.state("joined"))
	h.Docker(append([]string{"plugin", "set", PluginName}, settings...)...)
	h.Docker("plugin", "enable", PluginName)
}

// state is a file of the plugin's state, as this machine sees it.
func (h *Host) state(name string) string {
	h.t.Helper()
	return filepath.Join(h.Dir(), "docker/plugins", h.Docker("plugin", "inspect", "-f", "{{.Id}}", PluginName), "propagated-mount", name)
}

// StoreReady waits until the plugin's store is up.
func (h *Host) StoreReady() {
	h.t.Helper()
	h.Eventually(20*time.Second, "the plugin's store", func() error {
		if out, err := h.Try("nuagectl", "get", "enterprises"); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// Build makes nuage-plugin and nuagectl, so that nuagectl is a command of the host.
func (h *Host) Build() {
	h.t.Helper()
	if err := buildPlugin(); err != nil {
		h.t.Fatal(err)
	}
}

// UpgradePlugin installs another build of the same source over the present one.
func (h *Host) UpgradePlugin(version string) {
	h.t.Helper()
	if out, err := h.TryUpgrade(version); err != nil {
		h.t.Fatalf("upgrade: %v\n%s", err, out)
	}
}

// TryUpgrade is UpgradePlugin with additional environment, as NAME=VALUE, which may fail.
func (h *Host) TryUpgrade(version string, env ...string) (string, error) {
	h.t.Helper()
	if err := buildTree(version); err != nil {
		h.t.Fatal(err)
	}
	return h.TryWith("", env, filepath.Join(treeDir(version), "dist/plugin"), "install")
}

// Program is the path of a program of this source tree: nuage-plugin, nuagectl or app.
func (h *Host) Program(name string) string { return filepath.Join(treeDir("test"), "bin", name) }

// Tree is a file of what the plugin is installed from, such as dist/plugin.
func (h *Host) Tree(name string) string { return filepath.Join(treeDir("test"), name) }

// PluginPID is the process of the plugin, as the host numbers it.
func (h *Host) PluginPID() string {
	h.t.Helper()
	return h.Run("pgrep", "-x", "nuage-plugin")
}

// Docker runs the docker command.
func (h *Host) Docker(args ...string) string {
	h.t.Helper()
	return h.Run(append([]string{"docker"}, args...)...)
}

// TryDocker runs the docker command and returns what it said.
func (h *Host) TryDocker(args ...string) (string, error) {
	return h.Try(append([]string{"docker"}, args...)...)
}

// Exec runs a command in a container.
func (h *Host) Exec(container string, cmd ...string) string {
	h.t.Helper()
	return h.Docker(append([]string{"exec", container}, cmd...)...)
}

// Name is name as this test's own: tests share the host's Docker.
func (h *Host) Name(name string) string {
	slug := strings.ToLower(strings.TrimPrefix(h.t.Name(), "Test"))
	slug = strings.NewReplacer("/", "-", "_", "-", "#", "-", "=", "-", " ", "-").Replace(slug)
	return slug + "-" + strings.ToLower(name) // --network name=… is put in lower case by docker
}

// Network makes a Docker network called Name(name) with the bare driver name and returns
// its name. It is removed after the test.
func (h *Host) Network(name string, flags ...string) string {
	h.t.Helper()
	full := h.Name(name)
	h.Docker(append(append([]string{"network", "create", "-d", "nuage"}, flags...), full)...)
	h.t.Cleanup(func() { h.TryDocker("network", "rm", full) })
	return full
}

// Container starts a container called Name(name), by default a web server, and returns its
// name. It is removed after the test.
func (h *Host) Container(name string, flags ...string) string {
	h.t.Helper()
	full := h.Name(name)
	h.t.Cleanup(func() { h.TryDocker("rm", "-f", full) })
	h.Docker(append(append([]string{"run", "-d", "--name", full, "--hostname", full}, flags...), Image)...)
	return full
}

// Endpoint is what Docker says of a container's attachment to a network.
type Endpoint struct {
	EndpointID, Gateway, IPAddress, MacAddress string
	IPPrefixLen                                int
}

// Addr is the endpoint's address.
func (e Endpoint) Addr() netip.Addr {
	a, _ := netip.ParseAddr(e.IPAddress)
	return a
}

// Inspect is the part of `docker inspect` that tests look at.
type Inspect struct {
	ID    string `json:"Id"`
	State struct {
		Status string
		Pid    int
	}
	RestartCount    int
	NetworkSettings struct {
		Ports    map[string]any
		Networks map[string]Endpoint
	}
}

// Inspect looks at a container.
func (h *Host) Inspect(container string) Inspect {
	h.t.Helper()
	out := h.Docker("inspect", container)
	var is []Inspect
	if err := json.Unmarshal([]byte(out), &is); err != nil || len(is) != 1 {
		h.t.Fatalf("docker inspect %s: %v\n%s", container, err, out)
	}
	return is[0]
}

// Endpoint looks at a container's attachment to a network.
func (h *Host) Endpoint(container, network string) Endpoint {
	h.t.Helper()
	e, ok := h.Inspect(container).NetworkSettings.Networks[network]
	if !ok {
		h.t.Fatalf("container %s is not on network %s", container, network)
	}
	return e
}

// IP is the address of a container that is on one network.
func (h *Host) IP(container string) string {
	h.t.Helper()
	networks := h.Inspect(container).NetworkSettings.Networks
	if len(networks) != 1 {
		h.t.Fatalf("container %s is on %d networks", container, len(networks))
	}
	for _, e := range networks {
		if !e.Addr().IsValid() {
			h.t.Fatalf("container %s has no address: %+v", container, e)
		}
		return e.IPAddress
	}
	panic("unreachable")
}

// API calls the Docker API itself, for what the commands of some version cannot say. It
// returns the answer's body, and as an error the message of an answer that is none of 2xx.
func (h *Host) API(method, path string, body any) (string, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return "", err
	}
	return h.unix("/run/docker.sock", method, path, string(b), patience)
}

func (h *Host) unix(socket, method, path, body string, limit time.Duration) (string, error) {
	pid, err := h.pid1()
	if err != nil {
		return "", err
	}
	c := http.Client{Timeout: limit, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join("/proc", pid, "root", socket))
		}}}
	req, err := http.NewRequest(method, "http://host"+path, bytes.NewBufferString(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, out)
	}
	return string(out), err
}

// pid1 is the host's first process, as this machine numbers it.
func (m *machine) pid1() (string, error) {
	b, err := os.ReadFile(filepath.Join(m.Dir(), "pid"))
	if err != nil {
		return "", err
	}
	outer, _, _ := strings.Cut(string(b), " ")
	b, err = os.ReadFile(filepath.Join("/proc", outer, "task", outer, "children"))
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}

// Plugin sends a verb of the plugin protocol to the socket of the bare driver name, as
// dockerd does, and returns the answer's body, also that of a refusal.
func (h *Host) Plugin(verb, body string) (string, error) {
	out, err := h.unix("/run/docker/plugins/nuage.sock", "POST", "/"+verb, body, 20*time.Second)
	if out != "" {
		err = nil
	}
	return out, err
}
