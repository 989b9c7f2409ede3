package store

import (
	"context"
	"strings"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	maxLeases   = 16      // of one host
	maxLeaseTTL = 60 * 60 // seconds
)

// leaseBook knows whose etcd's leases are. A lease that it has not seen granted, as after
// a restart, is the host's whose alive key alone hangs on it, and otherwise nobody's.
type leaseBook struct {
	server pb.LeaseServer

	mu     sync.Mutex
	owners map[int64]string
}

func (b *leaseBook) owns(ctx context.Context, host string, lease int64) bool {
	b.mu.Lock()
	owner, known := b.owners[lease]
	b.mu.Unlock()
	if known {
		return owner == host
	}
	resp, err := b.server.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: lease, Keys: true})
	if err != nil || resp.TTL <= 0 || len(resp.Keys) != 1 || string(resp.Keys[0]) != aliveKey(host) {
		return false
	}
	b.note(lease, host)
	return true
}

func (b *leaseBook) note(lease int64, host string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.owners[lease] = strings.Clone(host)
}

func (b *leaseBook) grant(ctx context.Context, host string, req *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	if req.ID != 0 || req.TTL < 1 || req.TTL > maxLeaseTTL {
		return nil, deny("a lease with ID %d of %d seconds", req.ID, req.TTL)
	}
	if b.count(ctx, host) >= maxLeases {
		return nil, deny("more than %d leases", maxLeases)
	}
	resp, err := b.server.LeaseGrant(ctx, req)
	if err == nil {
		b.note(resp.ID, host)
	}
	return resp, err
}

// count forgets the leases of the host that are over, and counts the others.
func (b *leaseBook) count(ctx context.Context, host string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for lease, owner := range b.owners {
		if owner != host {
			continue
		}
		if resp, err := b.server.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: lease}); err == nil && resp.TTL <= 0 {
			delete(b.owners, lease)
		} else {
			n++
		}
	}
	return n
}
