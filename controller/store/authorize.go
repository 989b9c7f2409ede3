package store

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	grpcstatus "google.golang.org/grpc/status"
)

const (
	// sweepSkew is how much too early a host may take an expired lease for expired.
	sweepSkew = 5 * time.Second
	// recheck is how long a withdrawn or expired certificate can keep a watch at most.
	recheck    = 5 * time.Second
	maxWatches = 4096 // of one stream
)

// gate stands before the embedded etcd and lets a host do what is its own. What it does
// not know it refuses.
type gate struct {
	kv         pb.KVServer
	leases     *leaseBook
	autocreate bool
	now        func() time.Time
	log        *refusals
}

// caller is the host whose certificate the call came with.
func (g *gate) caller(ctx context.Context) (string, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", deny("no certificate")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return "", deny("no certificate")
	}
	return g.holder(ctx, info.State.PeerCertificates[0])
}

// holder is the host whose certificate it is, if the certificate counts now.
func (g *gate) holder(ctx context.Context, c *x509.Certificate) (string, error) {
	host, generation, err := identity(c)
	if err != nil {
		return "", deny("%v", err)
	}
	if g.now().After(c.NotAfter) {
		return host, deny("the certificate has expired")
	}
	kvs, _, err := g.read(ctx)(generationKey(host), "")
	if err != nil {
		return host, err
	}
	valid := uint64(0)
	if len(kvs) > 0 {
		if err := json.Unmarshal(kvs[0].Value, &valid); err != nil {
			return host, deny("the certificate's generation cannot be checked")
		}
	}
	if generation < valid {
		return host, deny("the certificate has been withdrawn: the host was evicted, or another has joined by its name; it can join with a new token")
	}
	return host, nil
}

func (g *gate) read(ctx context.Context) func(key, end string) ([]*mvccpb.KeyValue, int64, error) {
	return func(key, end string) ([]*mvccpb.KeyValue, int64, error) {
		q := &pb.RangeRequest{Key: []byte(key), Serializable: true}
		if end != "" {
			q.RangeEnd = []byte(end)
		}
		resp, err := g.kv.Range(ctx, q)
		if err != nil {
			return nil, 0, err
		}
		return resp.Kvs, resp.Header.Revision, nil
	}
}

// unary is the interceptor of calls with one answer.
func (g *gate) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	host, err := g.caller(ctx)
	var answer any
	if err == nil {
		answer, err = g.call(ctx, host, req, info, next)
	}
	return answer, g.refuse(host, err)
}

func (g *gate) call(ctx context.Context, host string, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	switch q := req.(type) {
	case *pb.RangeRequest:
		if err := readable(q.Key, q.RangeEnd); err != nil {
			return nil, err
		}
	case *pb.PutRequest:
		if err := g.single(ctx, host, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: q}}); err != nil {
			return nil, err
		}
	case *pb.DeleteRangeRequest:
		if err := g.single(ctx, host, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: q}}); err != nil {
			return nil, err
		}
	case *pb.TxnRequest:
		forward, answer, err := g.review(ctx, host).judge(ctx, g.kv, q)
		if err != nil {
			return nil, err
		}
		if answer != nil {
			return answer, nil
		}
		req = forward
	case *pb.LeaseGrantRequest:
		return g.leases.grant(ctx, host, q)
	case *pb.LeaseRevokeRequest:
		if !g.leases.owns(ctx, host, q.ID) {
			return nil, deny("revoke a lease of another")
		}
	case *pb.LeaseTimeToLiveRequest:
		if !g.leases.owns(ctx, host, q.ID) {
			return nil, deny("read a lease of another")
		}
	case *pb.AlarmRequest:
		if q.Action != pb.AlarmRequest_GET {
			return nil, deny("set an alarm")
		}
	default:
		return nil, deny("call %s", info.FullMethod)
	}
	return next(ctx, req)
}

func (g *gate) review(ctx context.Context, host string) *review {
	return &review{host: host, autocreate: g.autocreate, now: g.now(), read: g.read(ctx),
		owns: func(lease int64) bool { return g.leases.owns(ctx, host, lease) }}
}

// single judges a write without a transaction, which can have no conditions.
func (g *gate) single(ctx context.Context, host string, op *pb.RequestOp) error {
	conditions, err := g.review(ctx, host).txn(&pb.TxnRequest{Success: []*pb.RequestOp{op}})
	if err == nil && len(conditions) > 0 {
		err = deny("such a write needs a transaction")
	}
	return err
}

// stream is the interceptor of watches and of the keeping alive of leases.
func (g *gate) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	host, err := g.caller(ss.Context())
	if err == nil && info.FullMethod != pb.Watch_Watch_FullMethodName && info.FullMethod != pb.Lease_LeaseKeepAlive_FullMethodName {
		err = deny("call %s", info.FullMethod)
	}
	if err != nil {
		return g.refuse(host, err)
	}
	ctx, cancel := context.WithCancelCause(ss.Context())
	defer cancel(nil)
	go g.recheck(ctx, cancel)
	err = next(srv, &gatedStream{ServerStream: ss, ctx: ctx, cancel: cancel, gate: g, host: host})
	if d := (*denial)(nil); errors.As(context.Cause(ctx), &d) {
		err = d
	}
	return g.refuse(host, err)
}

// recheck ends a stream whose certificate counts no more.
func (g *gate) recheck(ctx context.Context, cancel context.CancelCauseFunc) {
	ticker := time.NewTicker(recheck)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if _, err := g.caller(ctx); err != nil {
			cancel(err)
		}
	}
}

// gatedStream judges each request of a stream as it comes in.
type gatedStream struct {
	grpc.ServerStream
	ctx     context.Context
	cancel  context.CancelCauseFunc // with a denial, that becomes the stream's end
	gate    *gate
	host    string
	watches atomic.Int64
}

func (s *gatedStream) Context() context.Context { return s.ctx }

func (s *gatedStream) RecvMsg(m any) error {
	for {
		if err := s.ServerStream.RecvMsg(m); err != nil {
			return err
		}
		if k, ok := m.(*pb.LeaseKeepAliveRequest); ok && !s.gate.leases.owns(s.ctx, s.host, k.ID) {
			// What an expired lease is answered too: the host then asks for a new one.
			if err := s.ServerStream.SendMsg(&pb.LeaseKeepAliveResponse{Header: &pb.ResponseHeader{}, ID: k.ID}); err != nil {
				return err
			}
			continue
		}
		err := s.judge(m)
		if err != nil {
			s.cancel(err)
			return s.ctx.Err()
		}
		return nil
	}
}

func (s *gatedStream) judge(m any) error {
	q, ok := m.(*pb.WatchRequest)
	if !ok {
		return nil
	}
	c := q.GetCreateRequest()
	switch {
	case c == nil:
		return nil
	case s.watches.Load() >= maxWatches:
		return deny("more than %d watches", maxWatches)
	}
	return readable(c.Key, c.RangeEnd)
}

func (s *gatedStream) SendMsg(m any) error {
	if w, ok := m.(*pb.WatchResponse); ok && w.Created != w.Canceled {
		if w.Created {
			s.watches.Add(1)
		} else {
			s.watches.Add(-1)
		}
	}
	return s.ServerStream.SendMsg(m)
}

// refuse logs a denial and makes it an error of the protocol; other errors stay.
func (g *gate) refuse(host string, err error) error {
	d := (*denial)(nil)
	if !errors.As(err, &d) {
		return err
	}
	g.log.add(host, d.text)
	return grpcstatus.Errorf(codes.PermissionDenied, "host %s: not allowed: %s", host, d.text)
}

// refusals are logged, but not more of one host than a log can bear.
type refusals struct {
	log logrus.FieldLogger

	mu    sync.Mutex
	since time.Time
	lines map[string]int
}

// refusalsLogged is how many refusals of one host are logged in a minute.
const refusalsLogged = 10

func (r *refusals) add(who, what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.since) > time.Minute {
		for who, n := range r.lines {
			if n > refusalsLogged {
				r.log.WithField("host", who).Warnf("%d more refusals were not logged", n-refusalsLogged)
			}
		}
		r.since, r.lines = now, map[string]int{}
	}
	if r.lines[who]++; r.lines[who] <= refusalsLogged {
		r.log.WithFields(logrus.Fields{"host": who, "reason": what}).Warn("a host was refused")
	}
}
