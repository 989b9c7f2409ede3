package host

import (
	"context"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"github.com/sirupsen/logrus"

	"nuage/controller/store"
	"nuage/controller/tenant"
)

// Elsewhere is a host of the fleet that is not there: what other hosts would have written
// into the store, for sizes that no machine can hold.
type Elsewhere struct {
	*store.Store
	h    *Host
	Host tenant.Host
}

// Elsewhere joins such a host, on the socket of the embedded etcd of the host that serves.
// It leaves with the test, and nothing of it stays.
func (h *Host) Elsewhere(vtep string) *Elsewhere {
	h.t.Helper()
	// The socket's own path is too long for the kernel.
	short, err := os.MkdirTemp("", "nuage-etcd")
	if err == nil {
		err = os.Symlink(h.state("etcd"), filepath.Join(short, "e"))
	}
	if err != nil {
		h.t.Fatal(err)
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	name := "elsewhere-" + uuid.NewString()[:8]
	e := &Elsewhere{h: h, Host: tenant.Host{Meta: tenant.Meta{ID: name}, Name: name, VTEP: netip.MustParseAddr(vtep)},
		Store: store.New(store.Config{Endpoints: []string{"unix://" + short + "/e/etcd.sock"}, Host: name, Log: log})}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.Run(ctx)
	}()
	h.t.Cleanup(func() {
		e.evict()
		stop()
		<-done
		os.RemoveAll(short)
	})
	h.Eventually(10*time.Second, "the store's socket", e.Ready)
	if err := e.PutHost(ctx, e.Host); err != nil {
		h.t.Fatal(err)
	}
	return e
}

func (e *Elsewhere) evict() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := e.EvictHost(ctx, e.Host.ID, true); err != nil {
		e.h.t.Errorf("host %s: %v", e.Host.Name, err)
	}
}

// Subnets are the IDs of the subnets of an enterprise, by domain and subnet name.
func (e *Elsewhere) Subnets(enterprise string) map[[2]string]tenant.Subnet {
	e.h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	st, err := e.Read(ctx)
	if err != nil {
		e.h.t.Fatal(err)
	}
	found := map[[2]string]tenant.Subnet{}
	for _, s := range st.Subnets {
		if d := st.Domains[s.DomainID]; d != nil && st.Enterprises[d.EnterpriseID] != nil && st.Enterprises[d.EnterpriseID].Name == enterprise {
			found[[2]string{d.Name, s.Name}] = *s
		}
	}
	return found
}

// Vport binds a vport to an address of a subnet.
func (e *Elsewhere) Vport(ctx context.Context, s tenant.Subnet, a netip.Addr) (tenant.Vport, error) {
	ip := a.As4()
	return e.BindVport(ctx, tenant.Vport{Meta: tenant.Meta{ID: uuid.NewString()}, Name: "elsewhere-" + a.String(), SubnetID: s.ID,
		Type: tenant.VportContainer, MAC: tenant.MAC{2, 0x42, ip[0], ip[1], ip[2], ip[3]}, IPv4: a, Host: e.Host.ID})
}
