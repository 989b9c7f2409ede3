package vsd

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"nuage/controller/tenant"
)

const (
	prefix      = "/nuage/api/v6/"
	defaultPage = 50
	maxPage     = 500
)

// serveVSD serves /me, /CHILDREN, /CHILDREN/ID and /PARENTS/ID/CHILDREN.
func (a *api) serveVSD(w http.ResponseWriter, r *http.Request) {
	if err := a.vsd(w, r); err != nil {
		writeVSDError(w, err)
	}
}

func (a *api) vsd(w http.ResponseWriter, r *http.Request) error {
	path := strings.Split(strings.Trim(strings.TrimPrefix(r.URL.Path, prefix), "/"), "/")
	if len(path) == 1 && path[0] == "me" {
		return a.me(w, r)
	}
	res := resourceOf(path[0])
	if res == nil || len(path) > 3 {
		return noResource(r)
	}
	s, err := a.read(r.Context())
	if err != nil {
		return err
	}
	switch len(path) {
	case 1:
		return a.collection(w, r, s, res, "", "")
	case 2:
		return a.object(w, r, s, res, path[1])
	}
	children := resourceOf(path[2])
	if children == nil && path[2] != "statistics" {
		return noResource(r)
	}
	if _, found := res.find(s, path[1]); !found {
		return notFound(res.words().rest, path[1])
	}
	if children == nil {
		return statistics(w, r, s, path[0], path[1])
	}
	if r.Method == http.MethodPut {
		return a.assign(w, r, s, path[0], path[1], path[2])
	}
	return a.collection(w, r, s, children, path[0], path[1])
}

func noResource(r *http.Request) error {
	return tenant.Errorf(tenant.ErrNotFound, "this version of nuage has no resource %s", r.URL.Path)
}

func (a *api) me(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return errMethod
	}
	u := userOf(r.Context())
	if u.APIKey == "" {
		u.APIKey, u.Expires = a.apiKey, time.Now().Add(24*time.Hour)
	}
	writeJSON(w, http.StatusOK, []map[string]any{{
		"ID": u.ID, "userName": u.Name, "firstName": u.Name, "lastName": u.Name, "email": nil, "role": u.Role,
		"enterpriseID": nil, "enterpriseName": u.Organization, "APIKey": u.APIKey, "APIKeyExpiry": u.Expires.UnixMilli(),
	}})
	return nil
}

// collection serves the list of a class, all of it or in one parent.
func (a *api) collection(w http.ResponseWriter, r *http.Request, s *tenant.State, res resource, parent, parentID string) error {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return list(w, r, s, res, parent, parentID)
	case http.MethodPost:
		if res.words().parent != parent && !slices.Contains(res.words().others, parent) {
			return fmt.Errorf("%w: %s are created under %s/ID/%s", errMethod, res.words().name, res.words().parent, res.words().name)
		}
		b, err := readBody(r)
		if err != nil {
			return err
		}
		if len(res.words().others) > 0 {
			b["parentType"] = json.RawMessage(strconv.Quote(strings.TrimSuffix(parent, "s")))
		}
		made, err := res.create(r.Context(), a, s, parentID, b)
		if err != nil {
			return err
		}
		writeObject(w, http.StatusCreated, s, made)
		return nil
	}
	return errMethod
}

func (a *api) object(w http.ResponseWriter, r *http.Request, s *tenant.State, res resource, id string) error {
	inst, found := res.find(s, id)
	if !found {
		return notFound(res.words().rest, id)
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		writeObject(w, http.StatusOK, s, inst)
		return nil
	case http.MethodPut:
		b, err := readBody(r)
		if err != nil {
			return err
		}
		now, err := res.update(r.Context(), a, s, id, b)
		if err != nil {
			return err
		}
		writeObject(w, http.StatusOK, s, now)
		return nil
	case http.MethodDelete: // some clients send the whole object as the body: not read
		if err := res.remove(r.Context(), a, s, id); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return errMethod
}

// writeObject shows an object that may be newer than the state, which has what contains it.
func writeObject(w http.ResponseWriter, status int, s *tenant.State, inst instance) {
	writeJSON(w, status, []map[string]any{inst.show(s)})
}

// readBody reads one object. No body and null are an object without attributes.
func readBody(r *http.Request) (body, error) {
	text, err := readAll(r)
	if err != nil {
		return nil, err
	}
	b := body{}
	if len(text) == 0 {
		return b, nil
	}
	if err := json.Unmarshal(text, &b); err != nil {
		return nil, tenant.Errorf(tenant.ErrInvalid, "the request is not a JSON object: %v", err)
	}
	return b, nil
}

func readAll(r *http.Request) ([]byte, error) {
	text, err := io.ReadAll(r.Body)
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, tenant.Errorf(tenant.ErrInvalid, "the request is larger than %d bytes", tooLarge.Limit)
	}
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	return text, nil
}

// query is what a list request asks for.
type query struct {
	filter     predicate // nil: all
	plain      string    // any attribute contains it, without regard to case; "" if filter is set
	filterType string
	order      []sortKey
	page, size int
}

type sortKey struct {
	attribute string
	down      bool
}

func parseQuery(h http.Header, res resource) (q query, err error) {
	if q.page, err = number(h, "X-Nuage-Page", 0, 0); err != nil {
		return q, err
	}
	if q.size, err = number(h, "X-Nuage-PageSize", defaultPage, 1); err != nil {
		return q, err
	}
	q.size = min(q.size, maxPage)
	for _, key := range strings.Split(h.Get("X-Nuage-OrderBy"), ",") {
		words := strings.Fields(key)
		switch {
		case len(words) == 0:
			continue
		case !res.attribute(words[0]):
			return q, tenant.Errorf(tenant.ErrInvalid, "order: a %s has no attribute %q", res.words().rest, words[0])
		case len(words) > 2 || len(words) == 2 && !strings.EqualFold(words[1], "ASC") && !strings.EqualFold(words[1], "DESC"):
			return q, tenant.Errorf(tenant.ErrInvalid, "order: %q is not \"attribute ASC\" or \"attribute DESC\"", key)
		}
		q.order = append(q.order, sortKey{words[0], len(words) == 2 && strings.EqualFold(words[1], "DESC")})
	}
	return q, q.parseFilter(h, res)
}

// parseFilter takes a filter that is no predicate on the class's attributes for plain
// text, unless the client says that it is one: a mistyped attribute must find nothing or
// be an error, and never find everything.
func (q *query) parseFilter(h http.Header, res resource) error {
	text, kind := h.Get("X-Nuage-Filter"), h.Get("X-Nuage-FilterType")
	if text == "" {
		return nil
	}
	p, err := parseFilter(text)
	if err == nil {
		p.attributes(func(a string) {
			if !res.attribute(a) {
				err = fmt.Errorf("filter: a %s has no attribute %q", res.words().rest, a)
			}
		})
	}
	switch {
	case kind != "plain" && err == nil:
		q.filter, q.filterType = p, "predicate"
	case kind == "predicate":
		return tenant.Errorf(tenant.ErrInvalid, "%v", err)
	default:
		q.plain, q.filterType = strings.ToLower(text), "plain"
	}
	return nil
}

func number(h http.Header, name string, absent, least int) (int, error) {
	text := h.Get(name)
	if text == "" {
		return absent, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least {
		return 0, tenant.Errorf(tenant.ErrInvalid, "%s: %q is not a number from %d up", name, text, least)
	}
	return n, nil
}

func list(w http.ResponseWriter, r *http.Request, s *tenant.State, res resource, parent, parentID string) error {
	q, err := parseQuery(r.Header, res)
	if err != nil {
		return err
	}
	var hits []instance
	if !res.each(s, parent, parentID, func(x instance) {
		if q.match(s, x) {
			hits = append(hits, x)
		}
	}) {
		return noResource(r)
	}
	q.sort(s, hits)
	items := []map[string]any{}
	for _, x := range q.slice(hits) {
		items = append(items, x.show(s))
	}
	h := w.Header()
	h.Set("X-Nuage-Count", strconv.Itoa(len(hits)))
	h.Set("X-Nuage-Page", strconv.Itoa(q.page))
	h.Set("X-Nuage-PageSize", strconv.Itoa(q.size))
	if q.filterType != "" {
		h.Set("X-Nuage-Filter", r.Header.Get("X-Nuage-Filter"))
		h.Set("X-Nuage-FilterType", q.filterType)
	}
	if len(q.order) > 0 {
		h.Set("X-Nuage-OrderBy", r.Header.Get("X-Nuage-OrderBy"))
	}
	writeJSON(w, http.StatusOK, items)
	return nil
}

func (q *query) match(s *tenant.State, x instance) bool {
	switch {
	case q.filter != nil:
		return q.filter.match(func(a string) (any, bool) { return x.value(s, a) })
	case q.plain != "":
		for _, v := range x.show(s) {
			if strings.Contains(strings.ToLower(textOf(v)), q.plain) {
				return true
			}
		}
		return false
	}
	return true
}

// sort puts the objects in the order asked for, and else in the order of their creation,
// so that pages do not overlap.
func (q *query) sort(s *tenant.State, xs []instance) {
	slices.SortFunc(xs, func(x, y instance) int {
		for _, k := range q.order {
			a, _ := x.value(s, k.attribute)
			b, _ := y.value(s, k.attribute)
			c := compareValues(a, b)
			if k.down {
				c = -c
			}
			if c != 0 {
				return c
			}
		}
		return cmp.Or(x.created().Compare(y.created()), cmp.Compare(x.id(), y.id()))
	})
}

func compareValues(a, b any) int {
	x, ok := a.(int64)
	y, ok2 := b.(int64)
	if ok && ok2 {
		return cmp.Compare(x, y)
	}
	return cmp.Compare(textOf(a), textOf(b))
}

func (q *query) slice(xs []instance) []instance {
	if q.page > len(xs)/q.size {
		return nil
	}
	from := q.page * q.size
	return xs[from:min(from+q.size, len(xs))]
}
