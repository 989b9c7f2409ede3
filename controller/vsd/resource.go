package vsd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"nuage/controller/tenant"
)

// resource is one class of VSD object: an entry of the table in resources.go, without
// the type of its objects.
type resource interface {
	words() words
	// find is an object by its ID.
	find(s *tenant.State, id string) (instance, bool)
	// each calls f with the objects that are in the one that the word and ID name; with
	// all of them if the word is empty. It is false if this class is not listed there.
	each(s *tenant.State, word, id string, f func(instance)) bool
	// attribute tells whether objects of the class have the attribute.
	attribute(name string) bool
	// The state given to these is as it was read at the request's begin.
	create(ctx context.Context, a *api, s *tenant.State, parentID string, b body) (instance, error)
	update(ctx context.Context, a *api, s *tenant.State, id string, b body) (instance, error)
	remove(ctx context.Context, a *api, s *tenant.State, id string) error
}

// instance is one object of a class, ready to be shown.
type instance interface {
	id() string
	created() time.Time
	value(s *tenant.State, attribute string) (any, bool)
	show(s *tenant.State) map[string]any
}

// words are how URLs and objects speak of a class, and what can be done to it.
type words struct {
	name string // in URLs: "subnets"
	rest string // of one object: "subnet"
	// parent is the word of the class whose children these are; empty for the root's.
	parent string
	// others are the words of further classes in which these can be created.
	others []string
	// unlisted is set if there is no list of all objects.
	unlisted bool
	// given says who makes these objects, if a client cannot.
	given string
}

// spec is an entry of the table.
type spec[T any] struct {
	called  words
	objects func(*tenant.State) map[string]*T
	meta    func(*T) *tenant.Meta
	// within gives an object's ID of what contains it, by the word of its class: the
	// lists that it appears in. The parent's word must be there.
	within map[string]func(*T) string
	// members tells of objects that are in several of a class whether they are in one.
	members map[string]func(s *tenant.State, o *T, id string) bool
	// parentOf is the word and ID of the parent, where that is not always of one class.
	parentOf func(*T) (word, id string)
	// adopt makes the object a child of an existing parent.
	adopt func(s *tenant.State, o *T, parentID string)
	// initial sets what a new object has that is not given; may be nil.
	initial func(o *T)
	fields  []field[T]
	// finish sets what depends on several attributes of the body; may be nil.
	finish func(o *T, b body) error
	// insert, write and takeAway are nil where clients cannot do so.
	insert   func(Store, context.Context, T) (T, error)
	write    func(Store, context.Context, T) (T, error)
	takeAway func(Store, context.Context, string) error
	// mayDelete refuses a deletion that the store would allow; may be nil.
	mayDelete func(*tenant.State, *T) error
}

// field is one attribute. What has no set is read-only: a client that sends it back is
// not heard.
type field[T any] struct {
	name     string
	required bool
	get      func(*tenant.State, *T) any
	set      func(*T, string) error
}

// text is an attribute that is text and can be written.
func text[T any](name string, at func(*T) *string) field[T] {
	return field[T]{name: name,
		get: func(_ *tenant.State, o *T) any { return orNull(*at(o)) },
		set: func(o *T, v string) error { *at(o) = v; return nil }}
}

// chosen is a number that the client may choose on creation, and the store chooses else.
func chosen[T any](name string, at func(*T) *uint32) field[T] {
	return kept(field[T]{name: name,
		get: func(_ *tenant.State, o *T) any { return int64(*at(o)) },
		set: func(o *T, v string) error {
			n, err := strconv.ParseUint(v, 10, 32)
			if err != nil {
				return badProperty(name, "%q is not a number in its range", v)
			}
			*at(o) = uint32(n)
			return nil
		}})
}

// flagged is an attribute that is true or false.
func flagged[T any](name string, at func(*T) *bool) field[T] {
	return kept(field[T]{name: name,
		get: func(_ *tenant.State, o *T) any { return *at(o) },
		set: func(o *T, v string) (err error) {
			if *at(o), err = strconv.ParseBool(v); err != nil {
				return badProperty(name, "%q is neither true nor false", v)
			}
			return nil
		}})
}

func required[T any](f field[T]) field[T] { f.required = true; return f }

// kept is an attribute that every object has, so that nothing can be given for it.
func kept[T any](f field[T]) field[T] {
	set := f.set
	f.set = func(o *T, v string) error {
		if v == "" {
			return nil
		}
		return set(o, v)
	}
	return f
}

// only is an attribute of one value, which others may mean as well; any else would be relied on.
func only[T any](name, value, why string, also ...string) field[T] {
	return kept(field[T]{name: name,
		get: func(*tenant.State, *T) any { return orNull(value) },
		set: func(_ *T, v string) error {
			if !strings.EqualFold(v, value) && !slices.Contains(also, v) {
				return badProperty(name, "%s", why)
			}
			return nil
		}})
}

// fixed are attributes whose value is always the same.
func fixed[T any](values map[string]any) []field[T] {
	var fs []field[T]
	for name, v := range values {
		fs = append(fs, field[T]{name: name, get: func(*tenant.State, *T) any { return v }})
	}
	return fs
}

func derived[T any](name string, get func(*tenant.State, *T) any) field[T] {
	return field[T]{name: name, get: get}
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// body is the object of a request. An attribute that is null counts as not given on
// creation, and is cleared by an update.
type body map[string]json.RawMessage

// text is an attribute as text. Numbers and booleans count as text, since clients send
// either.
func (b body) text(name string) (value string, given bool, err error) {
	raw, ok := b[name]
	if !ok {
		return "", false, nil
	}
	if bytes.Equal(raw, []byte("null")) {
		return "", true, nil
	}
	if raw[0] != '"' {
		if raw[0] == '{' || raw[0] == '[' {
			return "", true, badProperty(name, "%s must be text", name)
		}
		return string(raw), true, nil
	}
	if err := json.Unmarshal(raw, &value); err != nil {
		return "", true, badProperty(name, "%s is not valid text", name)
	}
	return value, true, nil
}

func (r *spec[T]) words() words { return r.called }

func (r *spec[T]) find(s *tenant.State, id string) (instance, bool) {
	o := r.objects(s)[id]
	if o == nil {
		return nil, false
	}
	return shown[T]{r, o}, true
}

func (r *spec[T]) each(s *tenant.State, word, id string, f func(instance)) bool {
	in, member := r.within[word], r.members[word]
	if word == "" && r.called.unlisted || word != "" && in == nil && member == nil {
		return false
	}
	for _, o := range r.objects(s) {
		if word == "" || in != nil && in(o) == id || member != nil && member(s, o, id) {
			f(shown[T]{r, o})
		}
	}
	return true
}

func (r *spec[T]) attribute(name string) bool {
	_, ok := r.field(name)
	return ok || common[name] != nil
}

func (r *spec[T]) field(name string) (field[T], bool) {
	for _, f := range r.fields {
		if f.name == name {
			return f, true
		}
	}
	return field[T]{}, false
}

// assign writes a body into an object.
func (r *spec[T]) assign(o *T, b body) error {
	for _, f := range r.fields {
		if f.set == nil {
			continue
		}
		v, given, err := b.text(f.name)
		switch {
		case err != nil:
			return err
		case given && (v != "" || !f.required):
			if err := f.set(o, v); err != nil {
				return err
			}
		}
	}
	if v, given, err := b.text("externalID"); err != nil {
		return err
	} else if given {
		r.meta(o).ExternalID = v
	}
	if r.finish == nil {
		return nil
	}
	return r.finish(o, b)
}

func (r *spec[T]) create(ctx context.Context, a *api, s *tenant.State, parentID string, b body) (instance, error) {
	if r.insert == nil {
		return nil, r.refusal()
	}
	maps.DeleteFunc(b, func(_ string, v json.RawMessage) bool { return string(v) == "null" })
	for _, f := range r.fields {
		if v, _, err := b.text(f.name); f.required && err == nil && v == "" {
			return nil, badProperty(f.name, "the %s of the %s is missing", f.name, r.called.rest)
		}
	}
	var o T
	if r.initial != nil {
		r.initial(&o)
	}
	if err := r.assign(&o, b); err != nil {
		return nil, err
	}
	if r.adopt != nil {
		r.adopt(s, &o, parentID)
	}
	made, err := r.insert(a.Store, ctx, o)
	if err != nil {
		return nil, err
	}
	return shown[T]{r, &made}, nil
}

// update merges the body into the object as it is when it is written: a client's PUT
// names no revision. A body that changes nothing writes nothing.
func (r *spec[T]) update(ctx context.Context, a *api, s *tenant.State, id string, b body) (instance, error) {
	if r.write == nil {
		return nil, r.refusal()
	}
	for attempt := 1; ; attempt++ {
		have := r.objects(s)[id]
		if have == nil {
			return nil, notFound(r.called.rest, id)
		}
		want := *have
		if err := r.assign(&want, b); err != nil {
			return nil, err
		}
		if reflect.DeepEqual(*have, want) {
			return shown[T]{r, have}, nil
		}
		now, err := r.write(a.Store, ctx, want)
		if err == nil {
			return shown[T]{r, &now}, nil
		}
		if !errors.Is(err, tenant.ErrStale) || attempt == writeAttempts {
			return nil, err
		}
		if s, err = a.read(ctx); err != nil {
			return nil, err
		}
	}
}

func (r *spec[T]) remove(ctx context.Context, a *api, s *tenant.State, id string) error {
	if r.takeAway == nil {
		return r.refusal()
	}
	o := r.objects(s)[id]
	if o == nil {
		return notFound(r.called.rest, id)
	}
	if r.mayDelete != nil {
		if err := r.mayDelete(s, o); err != nil {
			return err
		}
	}
	return r.takeAway(a.Store, ctx, id)
}

func (r *spec[T]) refusal() error {
	return fmt.Errorf("%s: %w: %s", r.called.name, errMethod, r.called.given)
}

func notFound(rest, id string) error {
	return tenant.Errorf(tenant.ErrNotFound, "Cannot find %s with ID %s", rest, id)
}

// shown is an object with its class.
type shown[T any] struct {
	r *spec[T]
	o *T
}

func (x shown[T]) id() string         { return x.r.meta(x.o).ID }
func (x shown[T]) created() time.Time { return x.r.meta(x.o).Created }

func (x shown[T]) value(s *tenant.State, name string) (any, bool) {
	if f, ok := x.r.field(name); ok {
		return f.get(s, x.o), true
	}
	if get := common[name]; get != nil {
		word, id := x.parent()
		return get(x.r.meta(x.o), word, id), true
	}
	return nil, false
}

func (x shown[T]) parent() (word, id string) {
	if x.r.parentOf != nil {
		return x.r.parentOf(x.o)
	}
	if in := x.r.within[x.r.called.parent]; in != nil {
		return x.r.called.parent, in(x.o)
	}
	return "", ""
}

func (x shown[T]) show(s *tenant.State) map[string]any {
	m := make(map[string]any, len(x.r.fields)+len(common))
	for _, f := range x.r.fields {
		m[f.name] = f.get(s, x.o)
	}
	word, id := x.parent()
	for name, get := range common {
		m[name] = get(x.r.meta(x.o), word, id)
	}
	return m
}

// common are the attributes of every object; parent is the word of its parent's class.
var common = map[string]func(m *tenant.Meta, parent, parentID string) any{
	"ID":         func(m *tenant.Meta, _, _ string) any { return m.ID },
	"externalID": func(m *tenant.Meta, _, _ string) any { return orNull(m.ExternalID) },
	"parentID":   func(_ *tenant.Meta, _, parentID string) any { return orNull(parentID) },
	// The word of a class is its rest name and an s, for all parents that there are.
	"parentType":       func(_ *tenant.Meta, parent, _ string) any { return orNull(strings.TrimSuffix(parent, "s")) },
	"creationDate":     func(m *tenant.Meta, _, _ string) any { return m.Created.UnixMilli() },
	"lastUpdatedDate":  func(m *tenant.Meta, _, _ string) any { return m.Updated.UnixMilli() },
	"owner":            func(*tenant.Meta, string, string) any { return localUser.ID },
	"lastUpdatedBy":    func(*tenant.Meta, string, string) any { return localUser.ID },
	"entityScope":      func(*tenant.Meta, string, string) any { return "ENTERPRISE" },
	"embeddedMetadata": func(*tenant.Meta, string, string) any { return nil },
}
