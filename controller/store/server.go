package store

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"google.golang.org/grpc"
)

const (
	startTimeout = 30 * time.Second
	stopTimeout  = 5 * time.Second
	// slow is a request worth a warning: the disk is in trouble then.
	slow = 2 * time.Second
	// socketName is the one listener, for etcd's own tools.
	socketName    = "etcd.sock"
	maxSocketPath = 107
)

// ownRoom is how many operations a transaction of this process on the embedded etcd has, but
// for a restoration's.
const ownRoom = 1024

// quota bounds the database; relieve makes room when it is reached.
var quota int64 = 1 << 30

// server is the embedded etcd.
type server struct {
	etcd    *embed.Etcd
	client  *clientv3.Client
	lock    *os.File
	closing atomic.Bool
	log     logrus.FieldLogger
	// streams ends the watches of other processes, for which etcd would wait on its end.
	streams     context.Context
	stopStreams context.CancelFunc
}

// startServer starts etcd in dir. When etcd dies later it calls died. past is what came of
// earlier starts in this process.
func startServer(ctx context.Context, dir string, log logrus.FieldLogger, past *ruin, died context.CancelCauseFunc) (*server, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := diskSpace(dir); err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	data := dataDir(dir)
	if err := past.standing(data); err != nil {
		lock.Close()
		return nil, err
	}
	srv := &server{lock: lock, log: log}
	srv.streams, srv.stopStreams = context.WithCancel(context.Background())
	fatal := make(chan error, 1)
	cfg := srv.config(dir, func(err error) {
		select {
		case fatal <- err:
		default:
		}
		died(fmt.Errorf("%w: %w", errEnded, err))
	})
	if err := srv.start(ctx, cfg, fatal); err != nil {
		srv.close()
		if errors.Is(err, errRuined) {
			past.note(data, err)
		}
		return nil, err
	}
	go func() {
		<-srv.etcd.Server.StopNotify()
		died(errors.New("etcd: stopped"))
	}()
	srv.client = v3client.New(srv.etcd.Server)
	return srv, nil
}

func dataDir(dir string) string { return filepath.Join(dir, "etcd") }

func (srv *server) config(dir string, fatal fatalHook) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Name = "nuage"
	cfg.Dir = dataDir(dir)
	cfg.ListenPeerUrls = nil
	cfg.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "localhost:2380"}} // an identity; nobody listens there
	socket := url.URL{Scheme: "unix", Path: filepath.Join(dir, socketName)}
	cfg.AdvertiseClientUrls, cfg.ListenClientUrls = []url.URL{socket}, []url.URL{socket}
	if len(socket.Path) > maxSocketPath {
		srv.log.WithField("path", socket.Path).Warn("the path is too long for a socket: etcd's own tools cannot connect")
		cfg.ListenClientUrls = nil
	}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.EnableGRPCGateway = false
	cfg.GRPCAdditionalServerOptions = []grpc.ServerOption{grpc.ChainStreamInterceptor(srv.stream)}
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "10m"
	cfg.QuotaBackendBytes = quota
	cfg.MaxTxnOps, cfg.MaxRequestBytes = restoreRoom, restoreBytes
	// Little of the log is to be replayed at a start, and kept in memory.
	cfg.SnapshotCount, cfg.SnapshotCatchUpEntries = 1000, 100
	cfg.MaxSnapFiles, cfg.MaxWalFiles = 2, 2
	cfg.WarningApplyDuration, cfg.WarningUnaryRequestDuration = slow, slow
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(newZap(srv.log, &srv.closing, fatal))
	return cfg
}

// start returns when etcd serves. A start that gets stuck or asks for the process's end is
// an error.
func (srv *server) start(ctx context.Context, cfg *embed.Config, fatal <-chan error) error {
	type result struct {
		etcd *embed.Etcd
		err  error
	}
	started := make(chan result, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				started <- result{err: fmt.Errorf("%w: %v", errRuined, r)}
			}
		}()
		e, err := embed.StartEtcd(cfg)
		started <- result{e, err}
	}()
	timeout := time.After(startTimeout)
	select {
	case r := <-started:
		if r.err != nil {
			return fmt.Errorf("etcd: %w", r.err)
		}
		srv.etcd = r.etcd
	case err := <-fatal:
		return fmt.Errorf("%w: %w", errRuined, err)
	case <-timeout:
		return fmt.Errorf("%w: not started after %s", errRuined, startTimeout)
	}
	select {
	case <-srv.etcd.Server.ReadyNotify():
		return nil
	case err := <-fatal:
		return fmt.Errorf("%w: %w", errRuined, err)
	case <-timeout:
		return fmt.Errorf("etcd: not ready after %s", startTimeout)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stream is the life of a stream of another process: it ends with the server.
func (srv *server) stream(h any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, cancel := context.WithCancel(ss.Context())
	defer cancel()
	defer context.AfterFunc(srv.streams, cancel)()
	return next(h, endingStream{ss, ctx})
}

type endingStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s endingStream) Context() context.Context { return s.ctx }

// close ends the client, then etcd, then gives the directory free.
func (srv *server) close() {
	srv.closing.Store(true)
	srv.stopStreams()
	if srv.client != nil {
		srv.client.Close()
	}
	if srv.etcd != nil {
		closed := make(chan struct{})
		go func() { srv.etcd.Close(); close(closed) }()
		select {
		case <-closed:
		case <-time.After(stopTimeout):
			srv.log.Errorf("etcd does not end within %s", stopTimeout)
		}
	}
	srv.lock.Close()
}

// relieve answers the alarm of a database that has reached its quota: it drops the
// history, gives the room back and ends the alarm.
func relieve(ctx context.Context, conn *connection) error {
	client := conn.client
	resp, err := client.AlarmList(ctx)
	if err != nil || len(resp.Alarms) == 0 {
		return err
	}
	for _, a := range resp.Alarms {
		if a.Alarm != pb.AlarmType_NOSPACE {
			return fmt.Errorf("etcd has raised the alarm %s", a.Alarm)
		}
	}
	head, err := client.Get(ctx, root, clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	// It may outlast a probe, and have been done by the one before.
	_, err = client.Compact(ctx, head.Header.Revision, clientv3.WithCompactPhysical())
	if err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("the database has reached its quota: compacting: %w", err)
	}
	if err := conn.defragment(); err != nil {
		return fmt.Errorf("the database has reached its quota: defragmenting: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout) // likewise
	defer cancel()
	_, err = client.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	return err
}
