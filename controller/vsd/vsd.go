// Package vsd is the REST API of the controller: VSD's v6 API for the objects that
// exist in the model, under /nuage/api/v6/, and nuage's own resources (status, views with
// names, apply, export) under /nuage/v1/.
//
// It translates between HTTP and the tenant model. It never decides what is allowed in
// the model, which is the store's, and never listens: its handler is served by others,
// and whoever serves it on a network wraps it in TLS and in authentication that calls
// WithUser.
package vsd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/sirupsen/logrus"

	"nuage/controller/store"
	"nuage/controller/tenant"
)

// Limits of one request.
const (
	maxBody       = 8 << 20
	requestTime   = 10 * time.Second
	applyTime     = 2 * time.Minute // of what may be many writes
	bodyTime      = 30 * time.Second
	answerTime    = 30 * time.Second
	writeAttempts = 5
)

// Store is what the API needs of the tenant store. Read is the whole state, of all hosts,
// as of one revision that no write which has returned is newer than; it is the caller's,
// and current while Revision is the same.
// An object with a Revision is written only if that is still the object's, else it is
// tenant.ErrStale.
type Store interface {
	PolicyStore
	Ready() error
	Read(context.Context) (*tenant.State, error)
	Revision(context.Context) (int64, error)
	CreateEnterprise(context.Context, tenant.Enterprise) (tenant.Enterprise, error)
	UpdateEnterprise(context.Context, tenant.Enterprise) (tenant.Enterprise, error)
	DeleteEnterprise(ctx context.Context, id string) error
	CreateDomain(context.Context, tenant.Domain) (tenant.Domain, error)
	UpdateDomain(context.Context, tenant.Domain) (tenant.Domain, error)
	DeleteDomain(ctx context.Context, id string) error
	CreateZone(context.Context, tenant.Zone) (tenant.Zone, error)
	UpdateZone(context.Context, tenant.Zone) (tenant.Zone, error)
	DeleteZone(ctx context.Context, id string) error
	CreateSubnet(context.Context, tenant.Subnet) (tenant.Subnet, error)
	UpdateSubnet(context.Context, tenant.Subnet) (tenant.Subnet, error)
	DeleteSubnet(ctx context.Context, id string) error
	BindVport(context.Context, tenant.Vport) (tenant.Vport, error)
	UpdateVport(context.Context, tenant.Vport) (tenant.Vport, error)
	DeleteVport(ctx context.Context, id string) error
	// Apply does the steps of a plan, all at once where they fit, and tells how many are done.
	Apply(ctx context.Context, steps []tenant.Step) (done int, err error)
	// EvictHost frees all that a host has. It is tenant.ErrConflict while the host is
	// alive, unless force.
	EvictHost(ctx context.Context, name string, force bool) error
	// CreateToken makes a token by which one other host joins, for a time. It is
	// tenant.ErrConflict where no host can, since this one does not serve.
	CreateToken(ctx context.Context, ttl time.Duration) (string, error)
	// Backup is all that Restore puts in the place of the state. They are tenant.ErrConflict
	// where the state is kept elsewhere.
	Backup(ctx context.Context, version string) ([]byte, error)
	Restore(ctx context.Context, backup []byte, dryRun bool) (store.Restored, error)
}

// Config is what New needs; every field but Tracer is required.
type Config struct {
	Store Store
	// Status is asked at each request and must not block.
	Status func() Status
	// Tracer asks the hosts' switches; nil if none can be asked.
	Tracer  Tracer
	Version string
	Log     logrus.FieldLogger
}

// New is the API's handler. It is safe for concurrent use and holds nothing open.
func New(cfg Config) http.Handler {
	a := &api{Config: cfg, latest: newLatest(), apiKey: uuid.NewString()}
	mux := http.NewServeMux()
	mux.HandleFunc(prefix, a.serveVSD)
	mux.HandleFunc("GET /nuage/v1/status", a.serveStatus)
	mux.HandleFunc("GET /nuage/v1/version", a.serveVersion)
	mux.HandleFunc("GET /nuage/v1/export", a.serveExport)
	mux.HandleFunc("GET /nuage/v1/explain", a.serveExplain)
	mux.HandleFunc("POST /nuage/v1/apply", a.serveApply)
	mux.HandleFunc("GET /nuage/v1/backup", a.serveBackup)
	mux.HandleFunc("POST "+restorePath, a.serveRestore)
	mux.HandleFunc("PATCH /nuage/v1/vports/{id}", a.servePatch)
	mux.HandleFunc("POST /nuage/v1/tokens", a.serveTokens)
	mux.HandleFunc("DELETE /nuage/v1/hosts/{name}", a.serveEvict)
	mux.HandleFunc("GET /nuage/v1/{kind}", a.serveView)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, tenant.Errorf(tenant.ErrNotFound, "no resource %s %s", r.Method, r.URL.Path))
	})
	return a.guard(mux)
}

type api struct {
	Config
	latest   *latest
	apiKey   string     // of the local user, who needs none
	applying sync.Mutex // one apply at a time: two of the same file would meet halfway
}

// guard bounds every request in size and time, logs the writes, and turns a defect into
// an answer.
func (a *api) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		ctl := http.NewResponseController(w) // deadlines: not every ResponseWriter has them
		_ = ctl.SetReadDeadline(start.Add(bodyTime))
		_ = ctl.SetWriteDeadline(start.Add(applyTime + answerTime))
		limit := requestTime
		size := int64(maxBody)
		if r.URL.Path == restorePath {
			size = store.MaxBackup
		}
		if r.URL.Path == "/nuage/v1/apply" || r.URL.Path == restorePath || r.Method == http.MethodDelete && strings.HasPrefix(r.URL.Path, "/nuage/v1/") {
			limit = applyTime
		}
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		rec := &recorder{ResponseWriter: w}
		defer func() {
			if p := recover(); p != nil {
				a.Log.WithField("stack", string(debug.Stack())).Errorf("api: %s %s: panic: %v", r.Method, r.URL.Path, p)
				if rec.status == 0 {
					writeError(rec, errors.New("defect in nuage, see its log"))
				}
			}
			log := a.Log.WithFields(logrus.Fields{"method": r.Method, "path": r.URL.Path, "status": rec.status, "took": time.Since(start), "user": userOf(ctx).Name})
			if r.Method == http.MethodGet || r.Method == http.MethodHead {
				log.Debug("api request")
			} else {
				log.Info("api request")
			}
		}()
		r.Body = http.MaxBytesReader(rec, r.Body, size)
		next.ServeHTTP(rec, r.WithContext(ctx))
	})
}

type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// User is who makes a request.
type User struct {
	ID, Name, Organization, Role string
	// APIKey replaces the password in later requests until Expires.
	APIKey  string
	Expires time.Time
}

type userKey struct{}

// WithUser is for the authentication in front of the handler: it says who makes the
// request. Without it the request is that of the host's root user, who alone can open
// the unix socket.
func WithUser(ctx context.Context, u User) context.Context {
	return context.WithValue(ctx, userKey{}, u)
}

// localUser is VSD's first administrator; its ID is the owner of all objects.
var localUser = User{ID: "8a6f0e20-a4db-4878-ad84-9cc61756cd5e", Name: "csproot", Organization: "csp", Role: "CSPROOT"}

func userOf(ctx context.Context) User {
	if u, ok := ctx.Value(userKey{}).(User); ok {
		return u
	}
	return localUser
}

// read is the state as it is now, which nobody may change. What was read before the store went away is not served: a
// client would take an object that it does not find for one to create.
func (a *api) read(ctx context.Context) (*tenant.State, error) {
	if err := a.ready(); err != nil {
		return nil, err
	}
	s, err := a.latest.read(ctx, a.Store)
	if err != nil {
		return nil, notServing{err}
	}
	return s, nil
}

// ready is the reason why the store cannot be read or written now, if any: at once, where
// the store itself would wait for its start.
func (a *api) ready() error {
	err := a.Store.Ready()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, tenant.ErrUnavailable):
		return notServing{err}
	}
	return notServing{fmt.Errorf("store: %w: %w", tenant.ErrUnavailable, err)}
}
