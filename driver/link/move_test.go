package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// container is a network namespace that is mounted, as Docker mounts a container's.
func container(t *testing.T, n int) (name, path string) {
	t.Helper()
	name = fmt.Sprintf("nuage-move-%d-%d", os.Getpid(), n)
	run(t, "ip", "netns", "add", name)
	t.Cleanup(func() { run(t, "ip", "netns", "del", name) })
	run(t, "ip", "-n", name, "link", "set", "lo", "up")
	return name, filepath.Join("/run/netns", name)
}

func inside(s Spec, path string) Inside {
	return Inside{Name: s.Name, Peer: s.Peer, Netns: path, Address: netip.MustParsePrefix("10.85.85.7/24"), Gateway: netip.MustParseAddr("10.85.85.1")}
}

func TestMove(t *testing.T) {
	l := private(t)
	ns, path := container(t, 1)
	s := spec("00000000011")
	if err := l.Create(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	name, err := l.Move(context.Background(), inside(s, path))
	if err != nil || name != "eth0" {
		t.Fatalf("%q %v", name, err)
	}
	if out := run(t, "ip", "link", "show", "dev", s.Name); !strings.Contains(out, "state UP") || strings.Contains(out, "qdisc noop ") {
		t.Errorf("the switch's end drops: %s", out)
	}
	if out := run(t, "ip", "-n", ns, "-o", "addr", "show", "dev", "eth0"); !strings.Contains(out, "inet 10.85.85.7/24 ") || strings.Contains(out, "inet6") {
		t.Errorf("addresses: %s", out)
	}
	out := run(t, "ip", "-n", ns, "-d", "link", "show", "dev", "eth0")
	for _, want := range []string{"UP,LOWER_UP", "mtu 1450", s.MAC.String(), "addrgenmode none", "veth"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in: %s", want, out)
		}
	}
	if out := run(t, "ip", "-n", ns, "route"); !strings.Contains(out, "default via 10.85.85.1 dev eth0") {
		t.Errorf("routes: %s", out)
	}
	if sum, tso := features(t, ns, "eth0"); sum != 0 || tso != 0 {
		t.Errorf("checksums %d, TSO %d", sum, tso)
	}

	// A second one takes the next free number, without a default route of its own.
	second := spec("00000000012")
	if err := l.Create(context.Background(), second); err != nil {
		t.Fatal(err)
	}
	in := inside(second, path)
	in.Address, in.Gateway = netip.MustParsePrefix("10.85.86.7/24"), netip.Addr{}
	if name, err := l.Move(context.Background(), in); err != nil || name != "eth1" {
		t.Errorf("%q %v", name, err)
	}
	for _, s := range []Spec{s, second} {
		if err := l.Delete(s.Name); err != nil {
			t.Fatal(err)
		}
	}
	if out := run(t, "ip", "-n", ns, "-o", "link"); strings.Contains(out, "eth") {
		t.Errorf("left in the container: %s", out)
	}
	if links := show(t); len(links) != 1 {
		t.Errorf("left here: %v", links)
	}
}

// Whatever fails, Delete takes the pair back, and this process is still in its own namespace.
func TestMoveErrors(t *testing.T) {
	l := private(t)
	ns, path := container(t, 2)
	run(t, "ip", "-n", ns, "link", "add", "dummy0", "type", "veth", "peer", "name", "dummy1")
	run(t, "ip", "-n", ns, "link", "set", "dummy0", "up")
	run(t, "ip", "-n", ns, "link", "set", "dummy1", "up")
	run(t, "ip", "-n", ns, "addr", "add", "192.0.2.2/24", "dev", "dummy0")
	run(t, "ip", "-n", ns, "route", "add", "default", "via", "192.0.2.1")
	file := filepath.Join(t.TempDir(), "unmounted")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, other := container(t, 3)
	for _, c := range []struct {
		what, path, says string
		gone             bool
		change           func(*Inside)
	}{
		{what: "no such container", path: filepath.Join(t.TempDir(), "gone"), says: "ended", gone: true},
		{what: "unmounted", path: file, says: "shared mount", gone: true},
		{what: "another default route", path: path, says: "default route via 10.85.85.1: the container has another"},
		{what: "gateway outside", path: other, says: "default route via 10.9.9.9", change: func(in *Inside) { in.Gateway = netip.MustParseAddr("10.9.9.9") }},
		{what: "no such link", path: other, says: "move: ", change: func(in *Inside) { in.Peer = "ncffffffffff" }},
	} {
		s := spec("00000000013")
		if err := l.Create(context.Background(), s); err != nil {
			t.Fatal(err)
		}
		in := inside(s, c.path)
		if c.change != nil {
			c.change(&in)
		}
		_, err := l.Move(context.Background(), in)
		if err == nil || !strings.Contains(err.Error(), c.says) || errors.Is(err, ErrNamespace) != c.gone {
			t.Errorf("%s: %v", c.what, err)
		}
		if err := l.Delete(s.Name); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if links := show(t); len(links) != 1 {
			t.Errorf("%s: left over: %v", c.what, links)
		}
	}
	if out := run(t, "ip", "-n", ns, "-o", "link"); strings.Contains(out, " eth") || strings.Contains(out, " nc0") {
		t.Errorf("left in the container: %s", out)
	}
}
