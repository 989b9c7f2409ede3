package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/docker/go-plugins-helpers/sdk"
	"github.com/sirupsen/logrus"
)

const (
	// dockerd itself waits for ever once it has been restarted, so every verb has its own
	// end. What makes something may wait for the store and the switch; what takes
	// something away works from local records and is quick.
	attachDeadline = 9 * time.Second
	detachDeadline = 5 * time.Second
	// After its deadline a verb has this long to notice; then dockerd gets its answer all
	// the same. Both together stay under 10 s.
	noticeDelay = 800 * time.Millisecond

	maxBody = 1 << 20
)

var errNoBody = errors.New("the call came without a body: dockerd repeats a call that broke, but not its contents; run the command again")

// wire carries the plugin protocol: routes, deadlines and the error envelope. It decides
// nothing.
type wire struct {
	mux *http.ServeMux
	log logrus.FieldLogger
}

func newWire(log logrus.FieldLogger) *wire {
	w := &wire{mux: http.NewServeMux(), log: log}
	w.mux.HandleFunc("/Plugin.Activate", func(rw http.ResponseWriter, _ *http.Request) {
		reply(rw, map[string][]string{"Implements": {"NetworkDriver", "IpamDriver"}})
	})
	w.mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) {
		// 404 is how the protocol says "not implemented".
		http.Error(rw, fmt.Sprintf(`{"Err":%q}`, "nuage: no verb "+r.URL.Path), http.StatusNotFound)
	})
	return w
}

func (w *wire) ServeHTTP(rw http.ResponseWriter, r *http.Request) { w.mux.ServeHTTP(rw, r) }

// asked adds a verb that comes without a body.
func asked[R any](w *wire, name string, do func(context.Context) (R, error)) {
	w.handle(name, detachDeadline, nil, func(ctx context.Context, _ []byte) (any, error) { return do(ctx) })
}

// verb adds a verb that comes with a JSON body. Unknown fields are ignored: engines add
// them.
func verb[Q, R any](w *wire, name string, deadline time.Duration, do func(context.Context, *Q) (R, error)) {
	w.handle(name, deadline, errNoBody, func(ctx context.Context, body []byte) (any, error) {
		q := new(Q)
		if err := json.Unmarshal(body, q); err != nil {
			return nil, fmt.Errorf("the body is not the JSON of %s: %w", name, err)
		}
		return do(ctx, q)
	})
}

// order adds a verb that has nothing to answer but that it was done.
func order[Q any](w *wire, name string, deadline time.Duration, do func(context.Context, *Q) error) {
	verb(w, name, deadline, func(ctx context.Context, q *Q) (struct{}, error) { return struct{}{}, do(ctx, q) })
}

func (w *wire) handle(name string, deadline time.Duration, empty error, do func(context.Context, []byte) (any, error)) {
	w.mux.HandleFunc("/"+name, func(rw http.ResponseWriter, r *http.Request) {
		start := time.Now()
		var answer any
		body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxBody))
		switch {
		case err != nil:
			err = fmt.Errorf("the body of %s could not be read: %w", name, err)
		case len(strings.TrimSpace(string(body))) == 0 && empty != nil:
			err = empty
		default:
			answer, err = w.bounded(name, deadline, func(ctx context.Context) (any, error) { return do(ctx, body) })
		}
		log := w.log.WithFields(logrus.Fields{"verb": name, "took": time.Since(start).Round(time.Microsecond)})
		if err != nil {
			log.WithError(err).WithField("body", logged(body)).Warn("verb refused")
			replyError(rw, err)
			return
		}
		log.WithField("body", logged(body)).Debug("verb done")
		reply(rw, answer)
	})
}

// bounded runs do until its deadline. The client's going away does not end it: dockerd
// repeats a broken call with an empty body, so what was begun is finished. A panic is an
// error for this verb and nobody else.
func (w *wire) bounded(name string, deadline time.Duration, do func(context.Context) (any, error)) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	type result struct {
		answer any
		err    error
	}
	done := make(chan result, 1)
	go func() {
		defer cancel()
		defer func() {
			if p := recover(); p != nil {
				w.log.WithFields(logrus.Fields{"verb": name, "stack": string(debug.Stack())}).Errorf("panic: %v", p)
				done <- result{nil, fmt.Errorf("%s: internal error (%v); the plugin's log has the details", name, p)}
			}
		}()
		answer, err := do(ctx)
		done <- result{answer, err}
	}()
	late := time.NewTimer(deadline + noticeDelay)
	defer late.Stop()
	select {
	case r := <-done:
		return r.answer, r.err
	case <-late.C:
		return nil, fmt.Errorf("%s: not done within %s", name, deadline+noticeDelay)
	}
}

func reply(rw http.ResponseWriter, answer any) {
	rw.Header().Set("Content-Type", sdk.DefaultContentTypeV1_1)
	json.NewEncoder(rw).Encode(answer)
}

// replyError answers 200 with both keys: network calls read Err, IPAM calls Error, and
// with another status an IPAM error would be shown as raw JSON.
func replyError(rw http.ResponseWriter, err error) {
	text := err.Error()
	reply(rw, map[string]string{"Err": text, "Error": text})
}
