package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
)

// Docker is looked at soon after it has come back, not when the next minute is over: until
// then status says that it does not answer. It may have come back as a version that does not
// speak the API of the one before.
func TestEngineIsSeenSoonAfterItIsBack(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "docker.sock")
	log := logrus.New()
	log.SetOutput(t.Output())
	seen := make(chan struct{}, 1)
	e := &engine{socket: socket, log: log, seen: func(_ context.Context, networks map[string]string, attached []Attached) {
		if networks["n1"] != "web" || len(networks) != 1 || len(attached) != 0 {
			t.Errorf("seen: %v, %v", networks, attached)
		}
		select {
		case seen <- struct{}{}:
		default:
		}
	}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := e.status(); err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("no error while Docker is away")
		}
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var version atomic.Value
	version.Store("1.41")
	stream := make(chan struct{}, 1) // ends a stream of events
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		speaks := version.Load().(string)
		path, agreed := strings.CutPrefix(r.URL.Path, "/v"+speaks)
		if path != "/_ping" && !agreed {
			http.Error(w, `{"message":"client version is too old"}`, http.StatusBadRequest)
			return
		}
		switch path {
		case "/_ping":
			w.Header().Set("Api-Version", speaks)
		case "/version":
			fmt.Fprintf(w, `{"Version":"that speaks %s"}`, speaks)
		case "/networks":
			if r.URL.RawQuery != "" {
				t.Errorf("only some networks are asked for: %s", r.URL)
			}
			_, _ = w.Write([]byte(`[{"Id":"n1","Name":"web"}]`))
		case "/containers/json":
			_, _ = w.Write([]byte(`[]`))
		case "/events": // none, and none later, as when what happened was before
			w.(http.Flusher).Flush()
			select {
			case <-stream:
				_, _ = w.Write([]byte(`{"Type":"network","Action":"create","Actor":{"ID":"n1"}}`))
			case <-r.Context().Done():
			}
		default:
			t.Errorf("asked for %s", r.URL)
		}
	})}
	go func() { _ = s.Serve(l) }()
	defer s.Close()
	select {
	case <-seen:
	case <-time.After(10 * time.Second):
		t.Fatal("not seen 10 s after Docker is back")
	}
	answers := func(want string) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			version, err := e.status()
			if err == nil && version == want {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("status: %q, %v; want %s", version, err, want)
			}
		}
	}
	answers("that speaks 1.41")
	version.Store("1.47")
	stream <- struct{}{}
	answers("that speaks 1.47")
}

// A list that Docker does not give is no empty list: by that, what runs would be collected.
func TestHalfOfDockersListsIsNone(t *testing.T) {
	for _, broken := range []string{"/networks", "/containers/json"} {
		t.Run(broken, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "docker.sock")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Api-Version", "1.41")
				switch path := strings.TrimPrefix(r.URL.Path, "/v1.41"); {
				case path == broken:
					http.Error(w, `{"message":"the daemon is busy"}`, http.StatusInternalServerError)
				case path != "/_ping":
					_, _ = w.Write([]byte(`[]`))
				}
			})}
			go func() { _ = s.Serve(l) }()
			defer s.Close()
			e := &engine{socket: socket, log: logrus.New(), seen: func(context.Context, map[string]string, []Attached) { t.Error("seen") }}
			api, err := e.client()
			if err != nil {
				t.Fatal(err)
			}
			defer api.Close()
			if err := e.look(t.Context(), api); err == nil || !strings.Contains(err.Error(), "the daemon is busy") {
				t.Errorf("look: %v", err)
			}
		})
	}
}
