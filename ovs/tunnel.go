package ovs

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// TunnelPort is the port to all other hosts: the flows say which one, and with what VNI.
const TunnelPort = "nuage-vxlan"

// vxlanPort is the UDP port that IANA gave to VXLAN.
const vxlanPort = "4789"

// Tunnel is the state of the way to other hosts.
type Tunnel struct {
	Port string // TunnelPort, or "" while no VTEP is configured
	// Problem is why tunnel packets are lost, and what to do, in words; "" if nothing is
	// known to be wrong.
	Problem string
}

const (
	tunnelEvery = 10 * time.Second       // an address may move without a word from Open vSwitch
	tunnelPause = 500 * time.Millisecond // between two looks, however busy the bridge is
)

// keepTunnel keeps the tunnel port as configured, and looks whether it can work, until
// ctx ends.
func (b *Bridge) keepTunnel(ctx context.Context) error {
	if !b.conf.VTEP.IsValid() {
		return nil
	}
	spec := PortSpec{Name: TunnelPort, Type: "vxlan", Options: map[string]string{
		"remote_ip": "flow", "key": "flow", "dst_port": vxlanPort, "local_ip": b.conf.VTEP.String()}}
	var asked time.Time
	for ctx.Err() == nil {
		b.mu.Lock()
		moved := b.moved
		b.mu.Unlock()
		var err error
		// A port that is refused is asked for anew, which ovs-vswitchd goes over all ports for.
		if p := b.look().ports[TunnelPort]; p.Error == "" || time.Since(asked) >= tunnelEvery {
			asked = time.Now()
			_, err = b.EnsurePort(ctx, spec)
		}
		problem := ""
		if err != nil {
			problem = err.Error()
		} else {
			link, err := b.conf.LinkOf(b.conf.VTEP)
			problem = tunnelProblem(b.look(), b.conf.VTEP, link, err)
		}
		if ctx.Err() == nil {
			b.setTunnel(problem)
		}
		var pause, every = time.NewTimer(tunnelPause), time.NewTimer(tunnelEvery)
		select {
		case <-ctx.Done():
		case <-moved:
			select { // a busy bridge is not looked at for each change
			case <-pause.C:
			case <-ctx.Done():
			}
		case <-every.C:
		}
		pause.Stop()
		every.Stop()
	}
	return ctx.Err()
}

// tunnelProblem finds out whether packets can leave. The kernel's datapath sends them by
// the kernel's routes. The userspace datapath knows no way out but a bridge of its own: what
// it would hand to the kernel is lost, without a word and without a counter.
func tunnelProblem(v view, vtep netip.Addr, link string, err error) string {
	port, there := v.ports[TunnelPort]
	switch {
	case v.bridge == nil || !there:
		return ""
	case port.Error != "":
		problem := fmt.Sprintf("tunnel: port %s: ovs-vswitchd cannot use it: %s", TunnelPort, port.Error)
		if strings.Contains(port.Error, "already in use") {
			problem += ": UDP port " + vxlanPort + " is another's on this host, such as Docker's overlay networks, which take another port after `docker swarm init --data-path-port 7789`"
		}
		return problem
	case err != nil:
		return fmt.Sprintf("tunnel: the links of this host cannot be listed: %v", err)
	case link == "":
		return fmt.Sprintf("tunnel: the VTEP %v is no address of this host: set NUAGE_VTEP to one, or to the name of its link", vtep)
	case v.bridge.datapath() != Netdev || v.internal[link] == Netdev:
		return ""
	}
	return fmt.Sprintf("tunnel: containers on other hosts are not reachable: the bridge's datapath is netdev (userspace), "+
		"which sends VXLAN only through a bridge of its own, and the VTEP %v belongs to %s, a link of the kernel's: "+
		"run `dist/uplink NIC ADDRESS/LENGTH`, which gives Open vSwitch an address of its own and leaves the host's alone, and set "+
		"NUAGE_VTEP to that address, or load the kernel module openvswitch and set NUAGE_DATAPATH=system", vtep, link)
}

// setTunnel publishes and logs news.
func (b *Bridge) setTunnel(problem string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tunnel.Problem == problem {
		return
	}
	if b.tunnel.Problem = problem; problem != "" {
		b.conf.Log.Warn(problem)
	} else {
		b.conf.Log.Info("the tunnel to other hosts is in order")
	}
	b.move()
}

// linkOf is the name of this host's link that has an address; "" if none has.
func linkOf(a netip.Addr) (string, error) {
	links, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	for _, l := range links {
		addrs, err := l.Addrs()
		if err != nil {
			continue // it has just gone
		}
		if slices.ContainsFunc(addrs, func(n net.Addr) bool {
			p, err := netip.ParsePrefix(n.String())
			return err == nil && p.Addr().Unmap() == a
		}) {
			return l.Name, nil
		}
	}
	return "", nil
}
