package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	grpcstatus "google.golang.org/grpc/status"

	"nuage/controller/tenant"
)

const (
	// What a connection speaks is agreed on in its TLS handshake.
	protoEtcd = "h2"
	protoJoin = "nuage-join/1"

	handshakeTimeout = 10 * time.Second
	maxHandshakes    = 128 // connections that have not shown a certificate
	maxFromOne       = 16  // of them from one address, lest one keeps all others out
	maxConnections   = 32  // of one host
	maxStreams       = 256 // of one connection
	maxRequest       = 1 << 20
)

// reconnect bounds how long a client waits before it tries a server again that was away.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
	MinConnectTimeout: requestTimeout,
}

// listen is one life of the port.
func (s *Store) listen(ctx context.Context, conn *connection) error {
	a, err := openAuthority(s.authorityDir())
	if err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.config.Listen)
	if err != nil {
		return err
	}
	log := &refusals{log: s.log, lines: map[string]int{}}
	g := newGate(conn.etcd, s.config.Autocreate, s.now, log)
	server := newGRPC(conn.etcd, g, a.life)
	d := &door{
		authority: a, gate: g, refusals: log, log: s.log,
		joining: &admission{authority: a, client: conn.client, gate: g, host: s.config.Host, now: s.now},
		etcd:    make(chan net.Conn),
		closed:  make(chan struct{}),
		addr:    l.Addr(),
		inside:  map[*entered]struct{}{},
		outside: map[string]int{},
	}
	var running sync.WaitGroup
	running.Go(func() { server.Serve(d) })
	defer running.Wait()
	defer server.Stop()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	defer l.Close()
	s.port.set(l.Addr().String(), a, nil)
	s.log.WithField("address", l.Addr().String()).Info("serving other hosts")
	return d.accept(l)
}

func newGate(etcd *etcdserver.EtcdServer, autocreate bool, now func() time.Time, log *refusals) *gate {
	return &gate{kv: v3rpc.NewQuotaKVServer(etcd), autocreate: autocreate, now: now, log: log,
		leases: &leaseBook{server: v3rpc.NewQuotaLeaseServer(etcd), owners: map[int64]string{}}}
}

func newGRPC(etcd *etcdserver.EtcdServer, g *gate, life time.Duration) *grpc.Server {
	server := grpc.NewServer(
		grpc.Creds(handshaken{}),
		grpc.UnaryInterceptor(g.unary), grpc.StreamInterceptor(g.stream),
		grpc.MaxRecvMsgSize(maxRequest), grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: requestTimeout / 2, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: 2 * requestTimeout, Timeout: requestTimeout,
			// A connection ends before its certificate does, so that the next one has the renewed one.
			MaxConnectionAge: life / 4, MaxConnectionAgeGrace: min(life/20, requestTimeout),
		}),
	)
	pb.RegisterKVServer(server, g.kv)
	pb.RegisterLeaseServer(server, g.leases.server)
	pb.RegisterWatchServer(server, v3rpc.NewWatchServer(etcd))
	pb.RegisterMaintenanceServer(server, alarms{etcd: etcd})
	return server
}

// alarms is all of etcd's maintenance that hosts need: to ask whether there is an alarm.
type alarms struct {
	pb.UnimplementedMaintenanceServer
	etcd *etcdserver.EtcdServer
}

func (a alarms) Alarm(ctx context.Context, req *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	resp, err := a.etcd.Alarm(ctx, req)
	if err == nil && resp.Header == nil {
		resp.Header = &pb.ResponseHeader{}
	}
	return resp, err
}

// door lets connections in: it makes the handshake, and hands those with a host's
// certificate to the gRPC server, whose listener it is. Before the handshake it says nothing.
type door struct {
	authority *authority
	gate      *gate
	joining   *admission
	refusals  *refusals
	log       logrus.FieldLogger

	etcd    chan net.Conn
	closed  chan struct{}
	closing sync.Once
	addr    net.Addr

	mu      sync.Mutex
	inside  map[*entered]struct{}
	outside map[string]int // the handshakes under way, by address
}

// accept takes connections until l is closed.
func (d *door) accept(l net.Listener) error {
	config := d.tls()
	for {
		c, err := l.Accept()
		if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() || isTransient(err) {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if err != nil {
			return err
		}
		from := source(c)
		if !d.begin(from) {
			c.Close()
			continue
		}
		go func() {
			defer d.done(from)
			d.greet(c, from, config)
		}()
	}
}

// begin takes a place for a handshake, if there is one for the address.
func (d *door) begin(from string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := 0
	for _, n := range d.outside {
		all += n
	}
	if all >= maxHandshakes || d.outside[from] >= maxFromOne {
		return false
	}
	d.outside[from]++
	return true
}

func (d *door) done(from string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.outside[from]--; d.outside[from] == 0 {
		delete(d.outside, from)
	}
}

// source is the address that a connection comes from.
func source(c net.Conn) string {
	from := c.RemoteAddr().String()
	if ip, _, err := net.SplitHostPort(from); err == nil {
		return ip
	}
	return from
}

// tls is who may come in: with a certificate of ours, or, to join, without.
func (d *door) tls() *tls.Config {
	base := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		GetCertificate:         d.authority.serverCertificate,
		ClientCAs:              d.authority.pool,
		ClientAuth:             tls.RequireAndVerifyClientCert,
		NextProtos:             []string{protoEtcd},
		SessionTicketsDisabled: true,
	}
	join := base.Clone()
	join.ClientAuth, join.NextProtos = tls.VerifyClientCertIfGiven, []string{protoJoin}
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Contains(hello.SupportedProtos, protoJoin) {
			return join, nil
		}
		return nil, nil
	}
	return base
}

func (d *door) greet(raw net.Conn, from string, config *tls.Config) {
	c := tls.Server(raw, config)
	raw.SetDeadline(time.Now().Add(handshakeTimeout))
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	go func() { // the end of the port ends handshakes too
		select {
		case <-d.closed:
			raw.Close()
		case <-ctx.Done():
		}
	}()
	if err := c.HandshakeContext(ctx); err != nil {
		raw.Close()
		d.refusals.add(from, fmt.Sprintf("TLS: %v", err))
		return
	}
	switch c.ConnectionState().NegotiatedProtocol {
	case protoJoin:
		defer c.Close()
		if err := d.joining.serve(ctx, c, d.log.WithField("from", from)); err != nil {
			d.refusals.add(from, err.Error())
		}
	case protoEtcd:
		raw.SetDeadline(time.Time{})
		d.enter(ctx, c, from)
	default:
		c.Close()
	}
}

// enter hands a connection to the gRPC server.
func (d *door) enter(ctx context.Context, c *tls.Conn, from string) {
	host, err := d.gate.holder(ctx, c.ConnectionState().PeerCertificates[0])
	if err != nil {
		// It is let in all the same: each call is refused with the reason.
		host = from
	}
	e := &entered{Conn: c, host: host, door: d}
	if err := d.admit(e); err != nil {
		c.Close()
		d.refusals.add(host, err.Error())
		return
	}
	select {
	case d.etcd <- e:
	case <-d.closed:
		e.Close()
	}
}

func (d *door) admit(e *entered) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	same := 0
	for other := range d.inside {
		if other.host == e.host {
			same++
		}
	}
	if same >= maxConnections {
		return fmt.Errorf("more than %d connections", maxConnections)
	}
	d.inside[e] = struct{}{}
	return nil
}

// entered is a connection that has been let in.
type entered struct {
	*tls.Conn
	host string
	door *door
}

func (c *entered) Close() error {
	c.door.mu.Lock()
	delete(c.door.inside, c)
	c.door.mu.Unlock()
	return c.NetConn().Close() // TLS' own end would wait for a peer that does not read
}

// Accept, Close and Addr make the door the gRPC server's listener.
func (d *door) Accept() (net.Conn, error) {
	select {
	case c := <-d.etcd:
		return c, nil
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

// Close ends all connections, also those that have not said anything yet, for which gRPC
// would wait.
func (d *door) Close() error {
	d.closing.Do(func() { close(d.closed) })
	d.mu.Lock()
	inside := slices.Collect(maps.Keys(d.inside))
	d.mu.Unlock()
	for _, c := range inside {
		c.Close()
	}
	return nil
}

// Addr: see Accept.
func (d *door) Addr() net.Addr { return d.addr }

// refused tells a write that the serving host does not take from an etcd that is away.
func (s *Store) refused(err error) error {
	if err == nil {
		return nil
	}
	if st, ok := grpcstatus.FromError(err); ok && st.Code() == codes.PermissionDenied {
		return tenant.Errorf(tenant.ErrDenied, "store at %s: %s", strings.Join(s.config.Endpoints, ", "), st.Message())
	}
	return s.unavailable(err)
}
