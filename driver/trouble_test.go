package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nuage/controller/tenant"
	"nuage/driver/link"
)

// awayStore answers every write as a store does that has lost its etcd.
type awayStore struct {
	Store
	away bool
}

var errAway = tenant.Errorf(tenant.ErrUnavailable, "store: etcd does not answer")

func (s *awayStore) Ready() error {
	if s.away {
		return errAway
	}
	return s.Store.Ready()
}
func (s *awayStore) EnsurePath(ctx context.Context, p tenant.PathSpec) (tenant.Path, error) {
	if s.away {
		return tenant.Path{}, errAway
	}
	return s.Store.EnsurePath(ctx, p)
}
func (s *awayStore) DeleteNetwork(ctx context.Context, id string) error {
	if s.away {
		return errAway
	}
	return s.Store.DeleteNetwork(ctx, id)
}
func (s *awayStore) BindVport(ctx context.Context, v tenant.Vport) (tenant.Vport, error) {
	if s.away {
		return v, errAway
	}
	return s.Store.BindVport(ctx, v)
}
func (s *awayStore) DeleteVport(ctx context.Context, id string) error {
	if s.away {
		return errAway
	}
	return s.Store.DeleteVport(ctx, id)
}

func TestUnknownIDs(t *testing.T) {
	r := newRig(t)
	r.ok(r.Leave(bg, &LeaveRequest{NetworkID: netID(9), EndpointID: epID(9)}))
	r.ok(r.DeleteEndpoint(bg, del(9)))
	r.ok(r.DeleteEndpoint(bg, &DeleteEndpointRequest{}))
	r.ok(r.DeleteNetwork(bg, &DeleteNetworkRequest{NetworkID: netID(9)}))
	r.ok(r.RevokeExternalConnectivity(bg, &RevokeRequest{}))
	if i, err := r.EndpointInfo(bg, &InfoRequest{EndpointID: epID(9)}); err != nil || i.Value == nil || len(i.Value) != 0 {
		t.Errorf("EndpointInfo: %+v %v", i, err)
	}
	if _, err := r.Join(bg, &JoinRequest{NetworkID: netID(9), EndpointID: epID(9)}); !errors.Is(err, tenant.ErrNotFound) {
		t.Errorf("Join: %v", err)
	}
	if _, err := r.CreateEndpoint(bg, epRequest(9, 9, "172.18.0.2/16")); !errors.Is(err, tenant.ErrNotFound) {
		t.Errorf("CreateEndpoint: %v", err)
	}
	for _, bad := range []string{"", "short", "../../../../../../etc", strings.Repeat("A", 64), strings.Repeat("a", 65), strings.Repeat("g", 64)} {
		if _, err := r.CreateEndpoint(bg, &CreateEndpointRequest{NetworkID: netID(9), EndpointID: bad}); !errors.Is(err, tenant.ErrInvalid) {
			t.Errorf("endpoint ID %q: %v", bad, err)
		}
	}
	r.expect("nothing")
}

// Docker repeats CreateEndpoint only with the same contents; anything else is two things
// under one name.
func TestOneEndpointIDTwoRequests(t *testing.T) {
	r := newRig(t)
	r.ok(r.CreateNetwork(bg, netRequest(1, "172.18.0.0/16", "172.18.0.1/16", app1)))
	_, err := r.CreateEndpoint(bg, epRequest(1, 1, "172.18.0.2/16"))
	r.ok(err)
	if _, err := r.CreateEndpoint(bg, epRequest(1, 1, "172.18.0.3/16")); !errors.Is(err, tenant.ErrConflict) {
		t.Errorf("got %v", err)
	}
	r.expect("the first", append(boundWorld(1, "172.18.0.0/16"), attachedWorld(1, "172.18.0.2")...)...)
	// Deleted and made again at once, before the first veth pair is gone.
	r.ok(r.DeleteEndpoint(bg, del(1)))
	_, err = r.CreateEndpoint(bg, epRequest(1, 1, "172.18.0.3/16"))
	r.ok(err)
	r.Wait()
	r.expect("the second", append(boundWorld(1, "172.18.0.0/16"), attachedWorld(1, "172.18.0.3")...)...)
}

// An address that another vport has fails one container and disturbs nobody.
func TestRefusedEndpointLeavesNothing(t *testing.T) {
	r := newRig(t)
	r.ok(r.CreateNetwork(bg, netRequest(1, "172.18.0.0/16", "172.18.0.1/16", app1)))
	_, err := r.CreateEndpoint(bg, epRequest(1, 1, "172.18.0.2/16"))
	r.ok(err)
	world := append(boundWorld(1, "172.18.0.0/16"), attachedWorld(1, "172.18.0.2")...)
	for address, says := range map[string]string{"172.18.0.2/16": "--ip-range", "172.18.0.1/16": "gateway"} {
		_, err = r.CreateEndpoint(bg, epRequest(1, 2, address))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", address, err)
		}
		r.expect("after "+address, world...)
	}
	bad := epRequest(1, 3, "172.18.0.3/16")
	bad.Options["polcy-group"] = "web"
	if _, err := r.CreateEndpoint(bg, bad); !errors.Is(err, tenant.ErrInvalid) {
		t.Errorf("unknown option: %v", err)
	}
	r.expect("after an unknown option", world...)
}

func TestStoreAway(t *testing.T) {
	r := newRig(t)
	away := &awayStore{Store: r.store}
	d := r.newDriver(r.Log, func(c *Config) { c.Store = away })
	r.ok(d.CreateNetwork(bg, netRequest(1, "172.18.0.0/16", "172.18.0.1/16", app1)))
	_, err := d.CreateEndpoint(bg, epRequest(1, 1, "172.18.0.2/16"))
	r.ok(err)

	away.away = true
	if err := d.CreateNetwork(bg, netRequest(2, "172.19.0.0/16", "172.19.0.1/16", app1)); !errors.Is(err, tenant.ErrUnavailable) {
		t.Errorf("CreateNetwork: %v", err)
	}
	if _, err := d.CreateEndpoint(bg, epRequest(1, 2, "172.18.0.3/16")); !errors.Is(err, tenant.ErrUnavailable) {
		t.Errorf("CreateEndpoint: %v", err)
	}
	links, _ := r.links.List()
	host, _ := link.Names(epID(1))
	if !slices.Equal(links, []string{host}) {
		t.Errorf("the refused endpoint's link is there: %v", links)
	}
	r.ok(d.DeleteEndpoint(bg, del(1)))
	r.ok(d.DeleteNetwork(bg, &DeleteNetworkRequest{NetworkID: netID(1)}))
	d.Wait()
	if links, _ := r.links.List(); len(links) != 0 {
		t.Errorf("links while the store is away: %v", links)
	}
	if r.vport(1).ID == "" {
		t.Error("the store was not away: this test proves nothing")
	}
	if _, err := d.Reconcile(bg); !errors.Is(err, tenant.ErrUnavailable) {
		t.Errorf("Reconcile: %v", err)
	}
	away.away = false
	_, err = d.Reconcile(bg)
	r.ok(err)
	r.expect("settled")
}

func TestSwitchAway(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.ok(r.CreateNetwork(bg, netRequest(1, "172.18.0.0/16", "172.18.0.1/16", app1)))
	for n, a := range []string{"172.18.0.2/16", "172.18.0.3/16"} {
		_, err := r.CreateEndpoint(bg, epRequest(1, n+1, a))
		r.ok(err)
	}
	for n := 11; n < 16; n++ {
		_, err := r.CreateEndpoint(bg, epRequest(1, n, fmt.Sprintf("172.18.0.%d/16", n)))
		r.ok(err)
	}
	r.ovs.StopVswitchd()
	r.ovs.StopDB()
	r.eventually("the bridge notices", func() bool { return adapter{r.bridge}.Ready() != nil })
	short, cancel := context.WithTimeout(bg, 2*time.Second)
	defer cancel()
	if _, err := r.CreateEndpoint(short, epRequest(1, 3, "172.18.0.4/16")); err == nil || !strings.Contains(err.Error(), "db.sock") {
		t.Errorf("CreateEndpoint: %v", err)
	}
	if r.vport(3).ID != "" {
		t.Error("the refused endpoint's vport is there")
	}
	start := time.Now()
	r.ok(r.DeleteEndpoint(bg, del(1)))
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("DeleteEndpoint took %s", took)
	}
	if r.vport(1).ID != "" {
		t.Error("the vport waits for the switch")
	}
	// One has waited; those that follow, as when an engine boots, do not.
	start = time.Now()
	for n := 11; n < 16; n++ {
		r.ok(r.DeleteEndpoint(bg, del(n)))
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("five more took %s", took)
	}
	if _, err := r.Reconcile(bg); err == nil {
		t.Error("Reconcile without a switch: no error")
	}
	r.ovs.StartDB()
	r.ovs.StartVswitchd()
	r.eventually("the bridge is back", func() bool { return adapter{r.bridge}.Ready() == nil })
	_, err := r.Reconcile(bg)
	r.ok(err)
	r.Wait()
	r.expect("settled", append(boundWorld(1, "172.18.0.0/16"), attachedWorld(2, "172.18.0.3")...)...)
	if _, err := r.Join(bg, &JoinRequest{NetworkID: netID(1), EndpointID: epID(2)}); err != nil {
		t.Errorf("Join after the switch came back: %v", err)
	}
}

// A switch that does not program makes Join fail in time, with the reason.
func TestJoinFailsInTime(t *testing.T) {
	r := newRig(t)
	r.ok(r.CreateNetwork(bg, netRequest(1, "172.18.0.0/16", "172.18.0.1/16", app1)))
	r.ovs.SignalVswitchd(syscall.SIGSTOP)
	defer r.ovs.SignalVswitchd(syscall.SIGCONT)
	_, err := r.CreateEndpoint(bg, epRequest(1, 1, "172.18.0.2/16"))
	r.ok(err)
	ctx, cancel := context.WithTimeout(bg, 500*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err = r.Join(ctx, &JoinRequest{NetworkID: netID(1), EndpointID: epID(1)})
	if err == nil || !strings.Contains(err.Error(), "vswitchd") || time.Since(start) > 2*time.Second {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
	r.ok(r.DeleteEndpoint(bg, del(1))) // as libnetwork does then
	r.ovs.SignalVswitchd(syscall.SIGCONT)
	r.Wait()
	r.expect("nothing of it", boundWorld(1, "172.18.0.0/16")...)
}

// A verb whose client went away is finished all the same.
func TestClientGoesAway(t *testing.T) {
	r := newRig(t)
	gone, cancel := context.WithCancel(bg)
	cancel()
	r.ok(r.CreateNetwork(gone, netRequest(1, "172.18.0.0/16", "172.18.0.1/16", app1)))
	_, err := r.CreateEndpoint(gone, epRequest(1, 1, "172.18.0.2/16"))
	r.ok(err)
	_, err = r.Join(gone, &JoinRequest{NetworkID: netID(1), EndpointID: epID(1)})
	r.ok(err)
	r.ok(r.DeleteEndpoint(gone, del(1)))
	r.ok(r.DeleteNetwork(gone, &DeleteNetworkRequest{NetworkID: netID(1)}))
	r.Wait()
	r.expect("nothing")
}

func TestFiftyAtOnce(t *testing.T) {
	r := newRig(t)
	r.ok(r.CreateNetwork(bg, netRequest(1, "172.18.0.0/16", "172.18.0.1/16", app1)))
	var wg sync.WaitGroup
	for n := range 50 {
		for range 2 { // each call also meets its own repetition
			wg.Go(func() {
				if _, err := r.CreateEndpoint(bg, epRequest(1, n, fmt.Sprintf("172.18.1.%d/16", n))); err != nil {
					t.Error(err)
				} else if _, err := r.Join(bg, &JoinRequest{NetworkID: netID(1), EndpointID: epID(n)}); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	want := boundWorld(1, "172.18.0.0/16")
	for n := range 50 {
		want = append(want, attachedWorld(n, fmt.Sprintf("172.18.1.%d", n))...)
	}
	r.expect("fifty", want...)
	for n := range 50 {
		wg.Go(func() {
			if err := r.DeleteEndpoint(bg, del(n)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	r.Wait()
	r.expect("none", boundWorld(1, "172.18.0.0/16")...)
}
