package store

import (
	"errors"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"nuage/controller/tenant"
)

// A cluster's history goes, and its hosts go on.
func TestClusterIsCompacted(t *testing.T) {
	was := compactEvery
	t.Cleanup(func() { compactEvery = was }) // after the stores
	compactEvery = 200 * time.Millisecond
	dir := t.TempDir()
	start(t, Config{Dir: dir})
	s, _ := startFar(t, dir, Config{Host: "h2", Compact: true})
	other, _ := startFar(t, dir, Config{Host: "h3", Compact: true})
	ctx := context10(t)
	ses, err := s.acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer ses.release()
	begin, err := ses.client.Get(ctx, root)
	if err != nil {
		t.Fatal(err)
	}
	p := mustPath(t, s, spec("App1", "10.0.1.0/24"))
	until(t, "the history is gone", func() bool {
		if err := errors.Join(s.PutHost(ctx, record("h2", "192.0.2.2")), s.Heartbeat(ctx, tenant.HostStatus{})); err != nil {
			t.Fatal(err)
		}
		_, err := ses.client.Get(ctx, root, clientv3.WithRev(begin.Header.Revision))
		return errors.Is(err, rpctypes.ErrCompacted)
	})
	v := newVport(p.Subnet, "10.0.1.2")
	if _, err := other.BindVport(ctx, v); err != nil {
		t.Fatal(err)
	}
	if err := other.Ready(); err != nil {
		t.Error(err)
	}
}
