// Package store keeps the tenant state in etcd: an embedded one, or one given by its
// endpoints; the code path is the same client either way. Every write is one transaction,
// conditional on what it read. A tenant.Feed mirrors what this host needs of the state: what all
// hosts share, this host's networks, and the domains that it follows.
//
// It is the only importer of etcd. It never listens on TCP but, if told to, on one port
// with mutual TLS, where a host can write only what is its own; it never exits the
// process, and never gives out a write as done that etcd has not committed.
package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"nuage/controller/tenant"
)

// Config is where the state is and how long addresses wait.
type Config struct {
	// Dir is the embedded etcd's directory, and where the store keeps what it must know of
	// itself after a restart, with an etcd elsewhere too; made with mode 0700 if missing.
	Dir string
	// Endpoints of an etcd to use instead of the embedded one, as etcd's client takes them.
	Endpoints []string
	TLS       *tls.Config
	// Compact drops the history of the etcd at Endpoints, which is then nobody's who needs it.
	Compact bool
	// Host is this host's name.
	Host string
	Log  logrus.FieldLogger
	// Listen is HOST:PORT on which the embedded etcd is served to other hosts; empty: it is not.
	Listen string
	// Autocreate lets the hosts that are served make enterprises, domains, zones, subnets and
	// policy groups.
	Autocreate bool
	// CADir is where the authority that signs the hosts' certificates is kept; by default
	// "ca" beside Dir.
	CADir string
	// Answer is asked what other hosts ask this one by Ask, by the name of the other; nil
	// leaves all without an answer. What it is given has at most 4 KiB, is from anybody with
	// the right to write to the store and may be anything. It returns at most MaxAnswer bytes,
	// and is called a few times at once.
	Answer func(ctx context.Context, asker string, question []byte) []byte
	// Reservation and Rest override tenant.ReservationTime and tenant.RestTime.
	Reservation, Rest time.Duration
	// Linger is how long a domain is followed that nothing on this host needs; 30 s by default.
	Linger time.Duration
	// Alive is how long this host counts as alive after its last heartbeat, in whole
	// seconds; 15 s by default.
	Alive time.Duration
}

// Store is the tenant state, read through its Feed and written by its methods. All methods
// are safe for concurrent use. A write returns once the Feed shows it, if it is about what
// the Feed follows; writes about the rest do not bring that in, but for those that say so.
//
// The errors of all writes: tenant.ErrUnavailable if etcd does not answer now (the write
// may or may not have happened; every write may be repeated), tenant.ErrInvalid,
// ErrNotFound, ErrExists, ErrConflict, ErrStale, ErrExhausted for what the caller asked.
type Store struct {
	config Config
	log    logrus.FieldLogger
	feed   *tenant.Feed
	now    func() time.Time
	past   ruin // of Run only
	port   port

	recalled bool // of Run only: the domains of before are in domains

	common, networks *part

	asking chan int // the slots in which this host may ask others now

	mu      sync.Mutex
	status  readiness
	domains map[string]*part        // followed, by ID
	remains map[string]tenant.Lease // left in domains no longer followed, to be swept, by ID
	watches int
	self    self
}

const (
	minBackoff = 200 * time.Millisecond
	maxBackoff = 3 * time.Second
	// requestTimeout bounds each request that the store makes on its own behalf.
	requestTimeout = 5 * time.Second
	probeInterval  = 2 * time.Second
	probeTimeout   = 3 * time.Second
	lingerTime     = 30 * time.Second
)

// New returns a store that does nothing until Run.
func New(c Config) *Store {
	if c.Log == nil {
		c.Log = logrus.StandardLogger()
	}
	if c.Reservation == 0 {
		c.Reservation = tenant.ReservationTime
	}
	if c.Rest == 0 {
		c.Rest = tenant.RestTime
	}
	if c.Linger == 0 {
		c.Linger = lingerTime
	}
	if c.Alive == 0 {
		c.Alive = aliveTime
	}
	from, to := commonRange()
	own := networkPrefix(c.Host)
	asking := make(chan int, maxAsking)
	for slot := range maxAsking {
		asking <- slot
	}
	return &Store{
		asking:   asking,
		common:   newPart(commonPart, from, to),
		networks: newPart(networksPart, own, prefixEnd(own)),
		domains:  map[string]*part{},
		remains:  map[string]tenant.Lease{},
		self:     self{turn: make(chan struct{}, 1)},
		config:   c,
		log:      c.Log,
		feed:     tenant.NewFeed(),
		now:      func() time.Time { return time.Now().UTC().Truncate(time.Millisecond) },
		status:   readiness{changed: make(chan struct{})},
	}
}

// Feed is the mirror of what this host follows; see Follow. It is empty until the first Ready, and keeps its last
// state while etcd is away.
func (s *Store) Feed() *tenant.Feed { return s.feed }

// Run starts or connects to etcd, keeps the feed and sweeps away what has expired, until
// ctx ends; it then closes in order and returns nil. Whatever fails is said by Ready and
// tried again.
func (s *Store) Run(ctx context.Context) error {
	s.retry(ctx, s.serve)
	s.set(nil, tenant.Errorf(tenant.ErrUnavailable, "store: closed"))
	return nil
}

// retry calls f again and again, slower while it fails fast, until ctx ends.
func (s *Store) retry(ctx context.Context, f func(context.Context) error) {
	backoff, last := minBackoff, ""
	for ctx.Err() == nil {
		began := time.Now()
		err := f(ctx)
		if ctx.Err() != nil {
			return
		}
		s.set(nil, s.unavailable(err))
		if time.Since(began) > maxBackoff {
			backoff = minBackoff
		}
		if err.Error() != last {
			last = err.Error()
			s.log.WithError(err).Warn("the store is not available; trying again")
		}
		select {
		case <-ctx.Done():
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// serve is one life of the embedded server, or of the connection to another.
func (s *Store) serve(life context.Context) error {
	ctx, cancel := context.WithCancelCause(life)
	defer cancel(nil)
	conn, err := s.connect(ctx, cancel)
	if err != nil {
		return err
	}
	defer conn.close()
	defer s.open(ctx, conn)()
	s.retry(ctx, func(ctx context.Context) error { return s.session(ctx, conn) })
	if life.Err() != nil {
		s.goodbye(conn)
	}
	err = context.Cause(ctx)
	if errors.Is(err, errEnded) {
		s.past.note(dataDir(s.config.Dir), err)
	}
	return err
}

// connection is a client of etcd and what goes with it.
type connection struct {
	client *clientv3.Client
	close  func()
	// defragment gives the database's free room back; nil if the database is not ours. The
	// client in the process has it not.
	defragment func() error
	etcd       *etcdserver.EtcdServer // nil if it is not ours
}

// connect returns a client. When what it talks to has died for good, it calls died.
func (s *Store) connect(ctx context.Context, died context.CancelCauseFunc) (*connection, error) {
	if len(s.config.Endpoints) == 0 {
		srv, err := startServer(ctx, s.config.Dir, s.log, &s.past, died)
		if err != nil {
			return nil, err
		}
		return &connection{srv.client, srv.close, srv.etcd.Server.Backend().Defrag, srv.etcd.Server}, nil
	}
	if s.config.Dir != "" {
		if err := os.MkdirAll(s.config.Dir, 0o700); err != nil {
			return nil, err
		}
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            s.config.Endpoints,
		TLS:                  s.config.TLS,
		DialTimeout:          requestTimeout,
		DialKeepAliveTime:    requestTimeout, // servers refuse more frequent ones
		DialKeepAliveTimeout: requestTimeout,
		Logger:               zap.NewNop(), // what fails is returned
		DialOptions:          []grpc.DialOption{grpc.WithConnectParams(reconnect)},
	})
	if err != nil {
		return nil, err
	}
	return &connection{client: client, close: func() { client.Close() }}, nil
}

// session is one life of the mirror. Writes are accepted from its first listing to its
// end, but not while a probe fails.
func (s *Store) session(ctx context.Context, conn *connection) error {
	ctx, cancel := context.WithCancelCause(ctx)
	ses := &session{connection: conn, ctx: ctx, fail: cancel}
	err := s.begin(ses)
	var background sync.WaitGroup
	if err == nil {
		s.set(ses, nil)
		background.Go(func() { s.probe(ses) })
		background.Go(func() { s.sweep(ctx) })
		background.Go(func() { s.leaveIdle(ctx) })
		if s.config.Compact {
			background.Go(func() { s.compact(ses) })
		}
		if s.config.Answer != nil {
			background.Go(func() { s.hear(ses) })
		}
		<-ctx.Done()
		err = context.Cause(ctx)
		s.set(nil, s.unavailable(err)) // no more calls on it while its probe ends
	}
	cancel(s.unavailable(err))
	background.Wait() // before the status: the probe sets it too
	s.set(nil, s.unavailable(err))
	ses.users.Wait()
	ses.watches.Wait()
	return err
}

// probe asks etcd regularly whether it still serves. After it has not answered for a while
// the session ends: what it is then may be older than what it was, so it is read anew.
func (s *Store) probe(ses *session) {
	ticker := time.NewTicker(probeInterval)
	defer ticker.Stop()
	failing, lost := false, false
	for {
		select {
		case <-ses.ctx.Done():
			return
		case <-ticker.C:
		}
		err := s.check(ses)
		if ses.ctx.Err() != nil {
			return
		}
		lost = lost || errors.Is(err, errSilent)
		switch {
		case err != nil:
			s.set(nil, s.unavailable(err))
			if !failing {
				s.log.WithError(err).Warn("the store is not available")
			}
		case lost:
			ses.fail(errors.New("etcd answers again"))
			return
		case failing:
			s.set(ses, nil)
			s.log.Info("the store is available again")
		}
		failing = err != nil
	}
}

// errSilent is an etcd that does not answer, or cannot.
var errSilent = errors.New("etcd does not answer")

// check is one probe: a consistent read, the alarms, the disk.
func (s *Store) check(ses *session) error {
	ctx, cancel := context.WithTimeout(ses.ctx, probeTimeout)
	defer cancel()
	if _, err := ses.client.Get(ctx, root); err != nil {
		return fmt.Errorf("%w: %w", errSilent, err)
	}
	if ses.defragment != nil {
		return errors.Join(diskSpace(s.config.Dir), relieve(ctx, ses.connection))
	}
	alarms, err := ses.client.AlarmList(ctx)
	if err == nil && len(alarms.Alarms) > 0 {
		err = fmt.Errorf("etcd has raised the alarm %s", alarms.Alarms[0].Alarm)
	}
	return err
}
