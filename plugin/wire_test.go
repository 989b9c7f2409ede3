package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
)

func quiet() *logrus.Logger {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return l
}

type echo struct{ Name string }

func testWire(t *testing.T) *wire {
	t.Helper()
	w := newWire(quiet())
	verb(w, "Test.Echo", time.Second, func(_ context.Context, q *echo) (*echo, error) { return q, nil })
	order(w, "Test.Refuse", time.Second, func(context.Context, *echo) error { return errors.New("subnet web: no") })
	order(w, "Test.Panic", time.Second, func(context.Context, *echo) error { panic("boom") })
	order(w, "Test.Hang", 20*time.Millisecond, func(context.Context, *echo) error { select {} })
	order(w, "Test.Slow", 20*time.Millisecond, func(ctx context.Context, _ *echo) error { <-ctx.Done(); return ctx.Err() })
	asked(w, "Test.Ask", func(context.Context) (echo, error) { return echo{"caps"}, nil })
	return w
}

func TestWireAnswers(t *testing.T) {
	w := testWire(t)
	for _, c := range []struct {
		desc, path, body string
		status           int
		want             string // part of the whole answer
		err              bool   // both Err and Error are there
	}{
		{"activation names both drivers", "Plugin.Activate", "", 200, `{"Implements":["NetworkDriver","IpamDriver"]}`, false},
		{"a verb answers its JSON", "Test.Echo", `{"Name":"web"}`, 200, `{"Name":"web"}`, false},
		{"unknown fields are ignored", "Test.Echo", `{"Name":"web","New":[1]}`, 200, `{"Name":"web"}`, false},
		{"no body where none is sent", "Test.Ask", "", 200, `{"Name":"caps"}`, false},
		{"a retry without body is a plain error", "Test.Echo", "", 200, "run the command again", true},
		{"so is one of white space", "Test.Echo", " \n", 200, "run the command again", true},
		{"garbage", "Test.Echo", "\x00\xffgarbage", 200, "not the JSON of Test.Echo", true},
		{"the wrong shape", "Test.Echo", `[1,2]`, 200, "not the JSON of Test.Echo", true},
		{"too long a body", "Test.Echo", `{"Name":"` + strings.Repeat("x", maxBody) + `"}`, 200, "could not be read", true},
		{"a refusal is 200 with both keys", "Test.Refuse", `{}`, 200, "subnet web: no", true},
		{"a panic is an error", "Test.Panic", `{}`, 200, "internal error (boom)", true},
		{"a verb that heeds its deadline", "Test.Slow", `{}`, 200, "deadline exceeded", true},
		{"a verb that does not", "Test.Hang", `{}`, 200, "not done within", true},
		{"an unknown verb", "NetworkDriver.Fly", `{}`, 404, "no verb", false},
	} {
		t.Run(c.desc, func(t *testing.T) {
			rec := httptest.NewRecorder()
			w.ServeHTTP(rec, httptest.NewRequest("POST", "/"+c.path, strings.NewReader(c.body)))
			if rec.Code != c.status || !strings.Contains(rec.Body.String(), c.want) {
				t.Fatalf("status %d, body %s; want %d and %q", rec.Code, rec.Body, c.status, c.want)
			}
			var m map[string]any
			if err := json.Unmarshal(rec.Body.Bytes(), &m); err != nil {
				t.Fatalf("the answer is not JSON: %v", err)
			}
			if c.err && (m["Err"] == nil || m["Err"] != m["Error"]) {
				t.Errorf("Err %v and Error %v, want the same text", m["Err"], m["Error"])
			}
		})
	}
}

// A client that goes away does not end what it began: dockerd's retry has no body.
func TestWireFinishesWithoutClient(t *testing.T) {
	w := newWire(quiet())
	started, finished := make(chan struct{}), make(chan error, 1)
	order(w, "Test.Attach", time.Second, func(ctx context.Context, _ *echo) error {
		close(started)
		time.Sleep(20 * time.Millisecond)
		finished <- ctx.Err()
		return nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	go w.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/Test.Attach", strings.NewReader("{}")).WithContext(ctx))
	<-started
	cancel()
	if err := <-finished; err != nil {
		t.Errorf("the verb's context ended with the client: %v", err)
	}
}
