package tenant

import (
	"errors"
	"fmt"
)

// The classes of refusal. Every error that the model, the store and the allocator
// return for a user's mistake wraps one of them, so that HTTP status and exit code are
// each chosen in one place.
var (
	// ErrInvalid is input that can never be right.
	ErrInvalid = errors.New("invalid")
	// ErrNotFound is a name or ID that does not exist.
	ErrNotFound = errors.New("not found")
	// ErrExists is a name, external ID, VNI or ID that is taken.
	ErrExists = errors.New("already exists")
	// ErrConflict is valid input that contradicts the present state: an overlap, an
	// object in use, an address that another vport has.
	ErrConflict = errors.New("conflict")
	// ErrStale is a write based on a revision that is no longer the object's.
	ErrStale = errors.New("changed meanwhile")
	// ErrExhausted is a subnet without a free address, or no number left.
	ErrExhausted = errors.New("exhausted")
	// ErrDenied is a write that the serving host does not take from this one.
	ErrDenied = errors.New("not allowed")
	// ErrUnavailable is a store, switch or Docker that does not answer now; try again.
	ErrUnavailable = errors.New("unavailable")
)

// Errorf is an error of one of the classes above whose text is the message alone, for
// sentences that already say what the class means.
func Errorf(class error, format string, args ...any) error {
	return &refusal{class: class, text: fmt.Sprintf(format, args...)}
}

type refusal struct {
	class error
	text  string
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.class }
