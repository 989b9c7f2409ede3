package agent

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"nuage/controller/tenant"
	"nuage/ovs"
	"nuage/ovs/flow"
	"nuage/ovs/pipeline"
)

const thisHost = "host-1"

func quiet() logrus.FieldLogger {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return l
}

func change(kind tenant.Kind, id string, value any) tenant.Change {
	return tenant.Change{Key: tenant.Key{Kind: kind, ID: id}, Value: value}
}

func domain(id string, number uint16) tenant.Change {
	return change(tenant.KindDomain, id, &tenant.Domain{Meta: tenant.Meta{ID: id}, Name: id, Number: number})
}

func subnet(id, domain, cidr string, vni uint32) tenant.Change {
	p := netip.MustParsePrefix(cidr)
	return change(tenant.KindSubnet, id, &tenant.Subnet{Meta: tenant.Meta{ID: id}, Name: id, DomainID: domain, CIDR: p,
		Gateway: p.Addr().Next(), VNI: vni})
}

// vport is in subnet "web" of domain "app1" at 10.0.x.y; iface "" puts it on another host.
func vport(n int, iface string) tenant.Change {
	id := fmt.Sprintf("v%d", n)
	v := &tenant.Vport{Meta: tenant.Meta{ID: id}, Name: "web-" + id, DomainID: "app1", SubnetID: "web", Host: "host-2",
		MAC: tenant.MAC{2, 0, 0, 0, byte(n >> 8), byte(n)}, IPv4: netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)})}
	if iface != "" {
		v.Host, v.Interface = thisHost, iface
	}
	return change(tenant.KindVport, id, v)
}

func knownHost(name, vtep string) tenant.Change {
	return change(tenant.KindHost, name, &tenant.Host{Meta: tenant.Meta{ID: name}, Name: name, VTEP: netip.MustParseAddr(vtep), MTU: 1500})
}

func base() []tenant.Change {
	return []tenant.Change{domain("app1", 1), subnet("web", "app1", "10.0.0.0/16", 100),
		knownHost(thisHost, "192.0.2.1"), knownHost("host-2", "192.0.2.2")}
}

func without(kind tenant.Kind, id string) tenant.Change { return change(kind, id, nil) }

// start runs an agent until the test ends or stop is called.
func start(t testing.TB, conf Config) (a *Agent, stop func()) {
	t.Helper()
	if conf.Log == nil {
		conf.Log = quiet()
	}
	conf.Host = thisHost
	a = New(conf)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	stop = func() {
		cancel()
		if err, ok := <-ended; ok && err != nil {
			t.Errorf("agent: %v", err)
		}
		close(ended)
	}
	t.Cleanup(func() {
		if cancel(); ctx.Err() != nil {
			select {
			case <-ended:
			case <-time.After(5 * time.Second):
				t.Error("the agent does not end")
			}
		}
	})
	return a, stop
}

// eventually waits for a condition, and fails with what is still wrong.
func eventually(t testing.TB, within time.Duration, wrong func() string) {
	t.Helper()
	limit := time.Now().Add(within)
	for {
		w := wrong()
		if w == "" {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("after %v: %s", within, w)
		}
		time.Sleep(time.Millisecond)
	}
}

// desired is what the switch has to have.
func desired(feed *tenant.Feed, ports map[string]uint32) (s flow.Set) {
	tunnel := ports[ovs.TunnelPort]
	ports = maps.Clone(ports)
	delete(ports, ovs.TunnelPort)
	feed.View(func(st *tenant.State) {
		s, _ = pipeline.Compile(pipeline.Input{State: st, Host: thisHost, Ports: ports, Tunnel: tunnel, ShowMeters: true})
	})
	return s
}

// difference says how two sets differ; empty if they do not.
func difference(have, want flow.Set) string {
	if d := flow.NewDiff(have, want); !d.Empty() {
		return fmt.Sprintf("%d flows lacking %v, %d too many %v", len(d.Add), first(d.Add), len(d.Delete), first(d.Delete))
	}
	return ""
}

func first(fs []flow.Flow) string {
	if len(fs) == 0 {
		return ""
	}
	return fs[0].String()
}
