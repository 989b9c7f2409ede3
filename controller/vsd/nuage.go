package vsd

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"nuage/controller/tenant"
)

// lookTime bounds what the status of this host waits for the store's word about others.
const lookTime = time.Second

func (a *api) serveStatus(w http.ResponseWriter, r *http.Request) {
	s := a.Status()
	s.Problems = s.problems()
	ctx, cancel := context.WithTimeout(r.Context(), lookTime)
	defer cancel()
	if st, err := a.read(ctx); err == nil { // else the store says itself what it lacks
		s.HostsKnown = len(hostNames(st))
		for _, told := range st.HostStatus {
			if told.Alive {
				s.HostsAlive++
			}
		}
	}
	writeJSON(w, http.StatusOK, s)
}

func (a *api) serveVersion(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"version": a.Version})
}

// parameters are the query's values. A parameter that the resource does not have, or one
// given twice, is an error: a mistyped one would widen what is meant.
func parameters(r *http.Request, known ...string) (map[string]string, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, tenant.Errorf(tenant.ErrInvalid, "query: %v", err)
	}
	values := map[string]string{}
	for name, v := range q {
		if !slices.Contains(known, name) {
			return nil, tenant.Errorf(tenant.ErrInvalid, "query: unknown parameter %q (known: %v)", name, known)
		}
		if len(v) != 1 {
			return nil, tenant.Errorf(tenant.ErrInvalid, "query: parameter %q is given %d times", name, len(v))
		}
		values[name] = v[0]
	}
	return values, nil
}

func (a *api) serveExport(w http.ResponseWriter, r *http.Request) {
	text, err := a.export(r)
	if err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(text)
}

func (a *api) export(r *http.Request) ([]byte, error) {
	q, err := parameters(r, "enterprise", "domain")
	if err != nil {
		return nil, err
	}
	s, err := a.read(r.Context())
	if err != nil {
		return nil, err
	}
	docs := tenant.Export(s, q["domain"])
	if e := q["enterprise"]; e != "" {
		docs = slices.DeleteFunc(docs, func(d tenant.Document) bool { return d.Enterprise != e })
	}
	if missing := absent(q["enterprise"], q["domain"]); len(docs) == 0 && missing != "" {
		return nil, tenant.Errorf(tenant.ErrNotFound, "nothing to export: there is no %s", missing)
	}
	return tenant.FormatDocuments(docs)
}

// absent says what is meant by these names, either of which may be empty.
func absent(enterprise, domain string) string {
	switch {
	case domain == "" && enterprise == "":
		return ""
	case domain == "":
		return "enterprise " + enterprise
	case enterprise == "":
		return "domain " + domain
	}
	return "domain " + domain + " in enterprise " + enterprise
}

func (a *api) serveEvict(w http.ResponseWriter, r *http.Request) {
	if err := a.evict(r); err != nil {
		writeError(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (a *api) evict(r *http.Request) error {
	name := r.PathValue("name")
	force, err := flag(r, "force")
	if err != nil {
		return err
	}
	s, err := a.read(r.Context())
	if err != nil {
		return err
	}
	if _, known := hostNames(s)[name]; !known {
		return tenant.Errorf(tenant.ErrNotFound, "host %s not found", name)
	}
	return a.Store.EvictHost(r.Context(), name, force)
}

// flag is a query's only parameter, which is true or false; false if it is not given.
func flag(r *http.Request, name string) (bool, error) {
	q, err := parameters(r, name)
	if err != nil || q[name] == "" {
		return false, err
	}
	is, err := strconv.ParseBool(q[name])
	if err != nil {
		return false, tenant.Errorf(tenant.ErrInvalid, "query: %s=%q is neither true nor false", name, q[name])
	}
	return is, nil
}

// Applied is the answer to an apply. After an error in the midst of it, Changes[:Done]
// are in force; applying the same again does the rest.
type Applied struct {
	DryRun  bool     `json:"dryRun"`
	Changes []Change `json:"changes"`
	Done    int      `json:"done"`
	Error   string   `json:"error,omitempty"`
}

// Change is one change of an apply.
type Change struct {
	Op     tenant.Op   `json:"op"`
	Kind   tenant.Kind `json:"kind"`
	Path   string      `json:"path"`
	Detail string      `json:"detail,omitempty"`
}

func (a *api) serveApply(w http.ResponseWriter, r *http.Request) {
	done, err := a.apply(r)
	switch {
	case err != nil && len(done.Changes) == 0:
		writeError(w, err)
	case err != nil:
		done.Error = err.Error()
		writeJSON(w, classify(err).status, done)
	default:
		writeJSON(w, http.StatusOK, done)
	}
}

func (a *api) apply(r *http.Request) (done Applied, err error) {
	if done.DryRun, err = flag(r, "dryRun"); err != nil {
		return done, err
	}
	text, err := readAll(r)
	if err != nil {
		return done, err
	}
	docs, err := tenant.ParseDocuments(text)
	if err != nil {
		return done, err
	}
	a.applying.Lock()
	defer a.applying.Unlock()
	s, err := a.read(r.Context())
	if err != nil {
		return done, err
	}
	steps, err := tenant.Plan(s, docs, uuid.NewString)
	if err != nil {
		return done, err
	}
	done.Changes = make([]Change, len(steps))
	for i, s := range steps {
		done.Changes[i] = Change{s.Op, s.Kind, s.Path, s.Detail}
	}
	if done.DryRun {
		return done, nil
	}
	done.Done, err = a.Store.Apply(r.Context(), steps)
	return done, err
}
