package vsd

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"nuage/controller/tenant"
)

// propertyError is an error about one attribute of the request's body.
type propertyError struct {
	property string
	err      error
}

func (e *propertyError) Error() string { return e.property + ": " + e.err.Error() }
func (e *propertyError) Unwrap() error { return e.err }

func badProperty(property, format string, args ...any) error {
	return &propertyError{property, tenant.Errorf(tenant.ErrInvalid, format, args...)}
}

// errMethod is a method that a resource does not have.
var errMethod = errors.New("method not allowed")

// notServing is an error before anything was done: the same request may be made again, and
// the answer says so by Retry-After.
type notServing struct{ error }

func (e notServing) Unwrap() error { return e.error }

// class is how one sentinel of the model shows in both APIs. VSD's status is 409 for
// whatever a user can mend, since its clients show the text of no other but 404.
type class struct {
	is          error
	status, vsd int
	title       string
	code        int // VSD's internalErrorCode
}

var classes = []class{
	{tenant.ErrInvalid, http.StatusBadRequest, http.StatusConflict, "Invalid input", 0},
	{tenant.ErrNotFound, http.StatusNotFound, http.StatusNotFound, "Object not found", 0},
	{tenant.ErrExists, http.StatusConflict, http.StatusConflict, "Duplicate object", 2510},
	{tenant.ErrConflict, http.StatusConflict, http.StatusConflict, "Conflict", 0},
	{tenant.ErrStale, http.StatusConflict, http.StatusConflict, "Object changed meanwhile", 0},
	{tenant.ErrExhausted, http.StatusConflict, http.StatusConflict, "Nothing left", 2702},
	{tenant.ErrDenied, http.StatusForbidden, http.StatusConflict, "Not allowed", 0},
	{tenant.ErrUnavailable, http.StatusServiceUnavailable, http.StatusServiceUnavailable, "Service unavailable", 0},
	{errMethod, http.StatusMethodNotAllowed, http.StatusMethodNotAllowed, "Method not allowed", 0},
	{context.DeadlineExceeded, http.StatusServiceUnavailable, http.StatusServiceUnavailable, "Service unavailable", 0},
}

func classify(err error) class {
	for _, c := range classes {
		if errors.Is(err, c.is) {
			return c
		}
	}
	return class{err, http.StatusInternalServerError, http.StatusInternalServerError, "Internal error", 0}
}

func sayRetry(w http.ResponseWriter, err error) {
	if errors.As(err, new(notServing)) {
		w.Header().Set("Retry-After", "1")
	}
}

// writeError answers a request of nuage's own API.
func writeError(w http.ResponseWriter, err error) {
	sayRetry(w, err)
	writeJSON(w, classify(err).status, map[string]any{"error": err.Error()})
}

// writeVSDError answers in VSD's form. No list in it may be empty: a client indexes
// them unasked.
func writeVSDError(w http.ResponseWriter, err error) {
	sayRetry(w, err)
	c := classify(err)
	property, text := "", err.Error()
	if p := (*propertyError)(nil); errors.As(err, &p) {
		property, text = p.property, p.err.Error()
	} else if c.is == tenant.ErrExists {
		property = "name"
	}
	type description struct {
		Title       string `json:"title"`
		Description string `json:"description"`
	}
	type item struct {
		Property     string        `json:"property"`
		Descriptions []description `json:"descriptions"`
	}
	writeJSON(w, c.vsd, map[string]any{
		"errors":            []item{{property, []description{{c.title, text}}}},
		"internalErrorCode": c.code,
		"title":             c.title,
		"description":       text,
	})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":"the answer has no JSON form"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // who has gone cannot be told
}
