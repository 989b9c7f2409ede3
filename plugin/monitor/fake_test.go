package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"nuage/driver"
)

// docker answers the four requests that a monitor may make, and fails the test at others.
type docker struct {
	t      *testing.T
	socket string

	mu         sync.Mutex
	containers map[string]*box
	starts     int
	sinces     []string // of the streams
	streams    []chan string
	broken     bool // lists fail
	version    string
	now        int64
}

type box struct {
	env     []string
	mode    string
	name    string
	start   int // 0: not running
	waiting bool
}

func newDocker(t *testing.T) *docker {
	d := &docker{t: t, socket: filepath.Join(t.TempDir(), "docker.sock"), containers: map[string]*box{}, version: "1.41", now: 1_700_000_000_000_000_000}
	d.listen()
	return d
}

func (d *docker) listen() {
	l, err := net.Listen("unix", d.socket)
	if err != nil {
		d.t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(d.serve)}}
	s.Start()
	d.t.Cleanup(func() { d.cut(); s.CloseClientConnections(); s.Close() })
}

func (d *docker) serve(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	version := d.version
	d.mu.Unlock()
	path, agreed := strings.CutPrefix(r.URL.Path, "/v"+version)
	switch {
	case path == "/_ping":
		w.Header().Set("Api-Version", version)
	case !agreed:
		http.Error(w, `{"message":"client version is too old or too new: supported is `+version+`"}`, http.StatusBadRequest)
	case path == "/events":
		d.events(w, r)
	case path == "/containers/json":
		d.list(w)
	case strings.HasPrefix(path, "/containers/") && strings.HasSuffix(path, "/json"):
		d.inspect(w, strings.Split(path, "/")[2])
	default:
		d.t.Errorf("the monitor asked for %s", r.URL)
		http.Error(w, "{}", http.StatusNotImplemented)
	}
}

func (d *docker) events(w http.ResponseWriter, r *http.Request) {
	ch := make(chan string, 100)
	d.mu.Lock()
	d.sinces = append(d.sinces, r.URL.Query().Get("since"))
	d.streams = append(d.streams, ch)
	d.mu.Unlock()
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	for e := range ch {
		fmt.Fprintln(w, e)
		w.(http.Flusher).Flush()
	}
}

func (d *docker) list(w http.ResponseWriter) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken {
		http.Error(w, `{"message":"the list is broken"}`, http.StatusInternalServerError)
		return
	}
	all := []map[string]any{}
	for id, c := range d.containers {
		if c.start > 0 {
			all = append(all, map[string]any{"Id": id, "Names": []string{"/" + c.name}, "HostConfig": map[string]any{"NetworkMode": c.mode}})
		}
	}
	json.NewEncoder(w).Encode(all)
}

func (d *docker) inspect(w http.ResponseWriter, id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.containers[id]
	if c == nil {
		http.Error(w, `{"message":"No such container"}`, http.StatusNotFound)
		return
	}
	state, key := map[string]any{"Running": c.start > 0, "Restarting": c.waiting, "Pid": c.start}, ""
	if c.start > 0 && !c.waiting {
		key = fmt.Sprintf("/var/run/docker/netns/%d", c.start)
	}
	json.NewEncoder(w).Encode(map[string]any{"Id": id, "Name": "/" + c.name, "State": state, "HostConfig": map[string]any{"NetworkMode": c.mode},
		"Config": map[string]any{"Env": c.env}, "NetworkSettings": map[string]any{"SandboxKey": key}})
}

// tell sends an event to who listens now.
func (d *docker) tell(action, id string) {
	d.now += 1000
	e := fmt.Sprintf(`{"Type":"container","Action":%q,"Actor":{"ID":%q},"time":%d,"timeNano":%d}`, action, id, d.now/1e9, d.now)
	for _, ch := range d.streams {
		ch <- e
	}
}

// start starts a container, silently if nobody is to be told.
func (d *docker) start(id string, silently bool, env ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.starts++
	c := d.containers[id]
	if c == nil {
		c = &box{env: env, mode: "none", name: "name-" + id}
		d.containers[id] = c
	}
	c.start = d.starts
	if !silently {
		d.tell("start", id)
	}
}

func (d *docker) stop(id string, silently bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.containers[id].start = 0
	if !silently {
		d.tell("die", id)
	}
}

func (d *docker) change(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// cut ends all streams.
func (d *docker) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, ch := range d.streams {
		close(ch)
	}
	d.streams = nil
}

// hands is a driver that holds the monitor to one call a container at a time, and to
// calls that a driver would be given.
type hands struct {
	t        *testing.T
	mu       sync.Mutex
	attached map[string]string // container → sandbox key
	refused  map[string]string // container → why
	calls    []string
	busy     map[string]bool
	most     int // calls at once
	// attach is asked before an attachment succeeds.
	attach func(ctx context.Context, c driver.Direct) error
}

func newHands(t *testing.T) *hands {
	return &hands{t: t, attached: map[string]string{}, refused: map[string]string{}, busy: map[string]bool{}}
}

func (h *hands) enter(call, id string) func() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.busy[id] {
		h.t.Errorf("%s %s while another call for it is under way", call, id)
	}
	h.busy[id] = true
	h.most = max(h.most, len(h.busy))
	h.calls = append(h.calls, call+" "+id)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.busy, id)
	}
}

func (h *hands) Attach(ctx context.Context, c driver.Direct) error {
	defer h.enter("attach", c.ContainerID)()
	if c.SandboxKey == "" || c.Netns != "/host"+c.SandboxKey || c.ContainerName != "name-"+c.ContainerID {
		h.t.Errorf("%+v", c)
	}
	if h.attach != nil {
		if err := h.attach(ctx, c); err != nil {
			return err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.attached[c.ContainerID] = c.SandboxKey
	delete(h.refused, c.ContainerID)
	return nil
}

func (h *hands) Refuse(_ context.Context, c driver.Direct, cause error) error {
	defer h.enter("refuse", c.ContainerID)()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refused[c.ContainerID] = cause.Error()
	return nil
}

func (h *hands) Detach(_ context.Context, id string) error {
	defer h.enter("detach", id)()
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.attached, id)
	delete(h.refused, id)
	return nil
}

func (h *hands) Containers() (ids []string, _ error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id := range h.attached {
		ids = append(ids, id)
	}
	for id := range h.refused {
		ids = append(ids, id)
	}
	return ids, nil
}

// has is what is attached and what is refused, in order.
func (h *hands) has() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []string
	for id, key := range h.attached {
		all = append(all, id+"@"+filepath.Base(key))
	}
	for id, why := range h.refused {
		all = append(all, id+": "+why)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func (h *hands) called(call string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.calls {
		if c == call {
			n++
		}
	}
	return n
}

// watch runs a monitor until the test ends.
func watch(t *testing.T, d *docker, h *hands, every time.Duration) (stop func()) {
	t.Helper()
	log := logrus.New()
	log.SetOutput(t.Output())
	m := New(Config{Socket: d.socket, Driver: h, Netns: func(key string) string { return "/host" + key }, Every: every, Log: log})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(5 * time.Second):
				t.Error("the monitor does not end")
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in 5 s: %s", what)
		}
	}
}

func (h *hands) becomes(want string) {
	h.t.Helper()
	eventually(h.t, fmt.Sprintf("%q", want), func() bool { return h.has() == want })
}
