package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"golang.org/x/sys/unix"
)

const (
	startTimeout = 30 * time.Second
	stopTimeout  = 5 * time.Second
	// minSpace is how much disk must be free: etcd ends itself when a write of its log fails.
	minSpace = 160 << 20
	// quota bounds the database; relieve makes room when it is reached.
	quota = 1 << 30
	// socketName is the one listener, for etcd's own tools.
	socketName    = "etcd.sock"
	maxSocketPath = 107
)

// server is the embedded etcd.
type server struct {
	etcd    *embed.Etcd
	client  *clientv3.Client
	lock    *os.File
	closing atomic.Bool
	log     logrus.FieldLogger
}

// startServer starts etcd in dir. When etcd dies later it calls died.
func startServer(ctx context.Context, dir string, log logrus.FieldLogger, died context.CancelCauseFunc) (*server, error) {
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
	srv := &server{lock: lock, log: log}
	fatal := make(chan error, 1)
	cfg := srv.config(dir, func(err error) {
		select {
		case fatal <- err:
		default:
		}
		died(err)
	})
	if err := srv.start(ctx, cfg, fatal); err != nil {
		srv.close()
		return nil, err
	}
	go func() {
		<-srv.etcd.Server.StopNotify()
		died(errors.New("etcd: stopped"))
	}()
	srv.client = v3client.New(srv.etcd.Server)
	return srv, nil
}

func (srv *server) config(dir string, fatal fatalHook) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Name = "nuage"
	cfg.Dir = filepath.Join(dir, "etcd")
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
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "10m"
	cfg.QuotaBackendBytes = quota
	cfg.SnapshotCount, cfg.SnapshotCatchUpEntries = 5000, 500
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
				started <- result{err: fmt.Errorf("etcd: %v", r)}
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
		return err
	case <-timeout:
		return fmt.Errorf("etcd: not started after %s", startTimeout)
	}
	select {
	case <-srv.etcd.Server.ReadyNotify():
		return nil
	case err := <-fatal:
		return err
	case <-timeout:
		return fmt.Errorf("etcd: not ready after %s", startTimeout)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close ends the client, then etcd, then gives the directory free.
func (srv *server) close() {
	srv.closing.Store(true)
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

// lockDir keeps other processes out of dir: etcd itself would wait for them without end.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 20))
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s is in use by process %s", dir, strings.TrimSpace(string(holder)))
		}
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintln(f, os.Getpid())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// diskSpace is an error while the disk of dir is nearly full.
func diskSpace(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < minSpace {
		return fmt.Errorf("%s: the disk is nearly full: %d MB free, %d needed", dir, free>>20, minSpace>>20)
	}
	return nil
}

// relieve answers the alarm of a database that has reached its quota: it drops the
// history, gives the room back and ends the alarm.
func relieve(ctx context.Context, client *clientv3.Client) error {
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
	if _, err := client.Compact(ctx, head.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		return fmt.Errorf("the database has reached its quota: compacting: %w", err)
	}
	if _, err := client.Defragment(ctx, ""); err != nil {
		return fmt.Errorf("the database has reached its quota: defragmenting: %w", err)
	}
	_, err = client.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	return err
}
