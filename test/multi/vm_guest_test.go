package multi

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"nuage/test/host"
)

// vmZone is a domain with a subnet of containers, "back" of "DockerZone", and one of
// machines, "VMSubnet" of "VMZone".
type vmZone struct {
	enterprise string
	net        int // the second byte of its addresses
}

func newVMZone(t testing.TB, h *host.Host, net int) vmZone {
	t.Helper()
	z := vmZone{h.Name("corp"), net}
	z.policy(t, h, "")
	return z
}

// policy applies the domain, with policies.
func (z vmZone) policy(t testing.TB, h *host.Host, policies string) {
	t.Helper()
	file := fmt.Sprintf(`
enterprise: %s
domains:
- name: App1
  zones:
  - {name: DockerZone, subnets: [{name: back, address: 10.%d.1.0/24}]}
  - {name: VMZone, subnets: [{name: VMSubnet, address: 10.%d.2.0/24}]}
  policyGroups: [guests]
  policies: [%s]
`, z.enterprise, z.net, z.net, policies)
	if out, err := h.TryWith(file, nil, "nuagectl", "apply", "-f", "-"); err != nil {
		t.Fatalf("nuagectl apply: %v\n%s", err, out)
	}
}

// container is one in DockerZone.
func (z vmZone) container(h *host.Host, name string) (full, ip string) {
	n := h.Network("back", "--ipam-driver", "nuage", "--ipam-opt", "enterprise="+z.enterprise, "--ipam-opt", "domain=App1",
		"--ipam-opt", "zone=DockerZone", "--ipam-opt", "subnet=back")
	full = h.Container(name, "--network", n)
	return full, h.IP(full)
}

// metadata is what a script writes at a machine's interface.
func (z vmZone) metadata(name, mac string, more ...string) []string {
	ids := append([]string{"nuage-enterprise=" + z.enterprise, "nuage-domain=App1", "nuage-zone=VMZone", "nuage-network=VMSubnet",
		"attached-mac=" + mac, "vm-name=" + name, "vm-uuid=0a0b0c0d-0000-4000-8000-" + strings.ReplaceAll(mac, ":", "")}, more...)
	for i, id := range ids {
		ids[i] = "external_ids:" + id
	}
	return ids
}

// plug puts a link on the bridge, as docs/vm.md tells, and unplug takes it away.
func plug(h *host.Host, link string, metadata []string) {
	h.OVS(append([]string{"vsctl", "--may-exist", "add-port", "alubr0", link, "--", "set", "Interface", link}, metadata...)...)
}

func unplug(h *host.Host, link string) {
	h.Try("ovs-vsctl", "--if-exists", "del-port", "alubr0", link)
	h.Try("ip", "link", "del", link)
}

// told is an external ID of an interface.
func told(h *host.Host, link, key string) string {
	return strings.Trim(h.OVS("vsctl", "--if-exists", "get", "Interface", link, "external_ids:"+key), `"`)
}

// attached waits until a link has an address, and returns it.
func attached(h *host.Host, link string) (ip string) {
	h.Eventually(15*time.Second, "attach "+link, func() error {
		if ip = told(h, link, "nuage-ip"); ip == "" {
			return errorf("error %q", told(h, link, "nuage-error"))
		}
		return nil
	})
	return ip
}

// vmImage is made once.
var vmImage = sync.OnceValue(func() error {
	if out, err := exec.Command("../vm/image").CombinedOutput(); err != nil {
		return fmt.Errorf("the virtual machine's image: %w\n%s", err, out)
	}
	return nil
})

// guest is a real virtual machine on a host, with software emulation.
type guest struct {
	t       testing.TB
	h       *host.Host
	link    string
	started time.Time
	console net.Conn
	lines   *bufio.Reader
}

// boot starts a machine with a tap, which is not on the bridge yet, and returns while it
// boots. It ends with the test.
func boot(t testing.TB, h *host.Host, link, mac string) *guest {
	t.Helper()
	if err := vmImage(); err != nil {
		t.Fatal(err)
	}
	// Beside the image, and short: the path of a socket is.
	dir, err := os.MkdirTemp("", "vm")
	if err != nil {
		t.Fatal(err)
	}
	image, err := filepath.Abs("../../.cache/vm")
	if err != nil {
		t.Fatal(err)
	}
	h.Run("ip", "tuntap", "add", link, "mode", "tap")
	h.Run("ip", "link", "set", link, "up")
	t.Cleanup(func() {
		h.Try("sh", "-c", "kill $(cat "+dir+"/pid)")
		unplug(h, link)
		os.RemoveAll(dir)
	})
	// The userspace datapath computes no checksums for a machine that leaves them to its card.
	h.Run("qemu-system-x86_64", "-M", "pc", "-cpu", "qemu64", "-accel", "tcg", "-m", "128", "-nodefaults", "-no-user-config", "-display", "none",
		"-daemonize", "-pidfile", dir+"/pid", "-serial", "unix:"+dir+"/console,server=on,wait=off",
		"-kernel", image+"/kernel", "-initrd", image+"/initrd",
		"-append", "console=ttyS0 quiet panic=-1 cryptomgr.notests apparmor=0 audit=0 mitigations=off no_timer_check tsc=reliable",
		"-netdev", "tap,id=net,ifname="+link+",script=no,downscript=no",
		"-device", "virtio-net-pci,netdev=net,mac="+mac+",csum=off,guest_csum=off,gso=off")
	g := &guest{t: t, h: h, link: link, started: time.Now()}
	if g.console, err = net.Dial("unix", dir+"/console"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.console.Close() })
	g.lines = bufio.NewReader(g.console)
	return g
}

// up waits until the machine has booted.
func (g *guest) up() {
	g.t.Helper()
	g.until(90*time.Second, regexp.MustCompile(`machine is up`))
	g.run("cd /") // its shell has started
	g.t.Logf("the machine on host %s was up %v after its start", g.h.HostName(), time.Since(g.started).Round(time.Second))
}

// until reads the console up to a line.
func (g *guest) until(limit time.Duration, end *regexp.Regexp) (before []string, match []string) {
	g.t.Helper()
	g.console.SetDeadline(time.Now().Add(limit))
	for {
		line, err := g.lines.ReadString('\n')
		line = strings.TrimRight(line, "\r\n")
		if m := end.FindStringSubmatch(line); m != nil {
			return before, m
		}
		before = append(before, line)
		if err != nil {
			g.t.Fatalf("the machine's console: %v, and no %v in:\n%s", err, end, strings.Join(before, "\n"))
		}
	}
}

// try runs a command in the machine.
func (g *guest) try(cmd string) (string, bool) {
	g.t.Helper()
	if _, err := fmt.Fprintf(g.console, "{ %s; } 2>&1; echo \"<$?>\"\n", cmd); err != nil {
		g.t.Fatal(err)
	}
	out, code := g.until(40*time.Second, regexp.MustCompile(`^(.*)<(\d+)>$`))
	return strings.TrimSpace(strings.Join(append(out, code[1]), "\n")), code[2] == "0"
}

// run is try for a command that has to succeed.
func (g *guest) run(cmd string) string {
	g.t.Helper()
	out, ok := g.try(cmd)
	if !ok {
		g.t.Fatalf("in the machine on host %s: %s:\n%s", g.h.HostName(), cmd, out)
	}
	return out
}

// lease has the machine ask for its address, and returns what it was told.
func (g *guest) lease() string {
	g.t.Helper()
	g.run("udhcpc -q -n -t 10 -T 1 -i eth0 -s /udhcpc -O 121 -O mtu")
	return g.run("tail -n 1 /tmp/dhcp")
}
