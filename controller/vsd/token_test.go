package vsd

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// token makes a token, as soon as the store listens.
func (b *bench) token(body string) (made Token) {
	b.t.Helper()
	status, _, text := b.call("POST", "/nuage/v1/tokens", body)
	for deadline := time.Now().Add(20 * time.Second); status == 503 && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		status, _, text = b.call("POST", "/nuage/v1/tokens", body)
	}
	if err := json.Unmarshal([]byte(text), &made); err != nil || status != 201 {
		b.t.Fatalf("token: %d %v %s", status, err, text)
	}
	return made
}

func TestToken(t *testing.T) {
	if status, h, text := newBench(t).call("POST", "/nuage/v1/tokens", ""); status != 409 || h.Get("Retry-After") != "" || !strings.Contains(text, "NUAGE_LISTEN") {
		t.Errorf("on a host that does not serve: %d %s", status, text)
	}
	b := listening(t, "127.0.0.1:0")
	seen := map[string]bool{}
	for body, want := range map[string]time.Duration{"": time.Hour, "{}": time.Hour, `{"ttl":"90m"}`: 90 * time.Minute} {
		made := b.token(body)
		if made.Token == "" || seen[made.Token] || time.Until(made.Expires.Add(-want)).Abs() > 5*time.Second {
			t.Errorf("%s: %+v", body, made)
		}
		seen[made.Token] = true
	}
	for _, body := range []string{"x", "[]", `{"ttl":1}`, `{"ttl":"1 hour"}`, `{"ttl":"-1h"}`, `{"ttl":"0s"}`, `{"ttl":"1ms"}`, `{"lifetime":"1h"}`} {
		if status, _, text := b.call("POST", "/nuage/v1/tokens", body); status != 400 {
			t.Errorf("%s: %d %s", body, status, text)
		}
	}
	b.stop()
	if status, h, text := b.call("POST", "/nuage/v1/tokens", ""); status != 503 || h.Get("Retry-After") == "" {
		t.Errorf("without a store: %d %s", status, text)
	}
}

func TestProblems(t *testing.T) {
	well := func() Status {
		return Status{Store: StoreStatus{Ready: true}, Switch: SwitchStatus{Connected: true}, Docker: DockerStatus{Reachable: true}}
	}
	if s := well(); len(s.problems()) > 0 {
		t.Errorf("healthy: %q", s.problems())
	}
	for want, spoil := range map[string]func(*Status){
		"setting NUAGE_MTU: no number":    func(s *Status) { s.Settings = []SettingError{{"NUAGE_MTU", "no number"}} },
		"store not ready":                 func(s *Status) { s.Store.Ready = false },
		"store not ready: no leader":      func(s *Status) { s.Store = StoreStatus{Error: "no leader"} },
		"store: disk full":                func(s *Status) { s.Store.Error = "disk full" },
		"switch not connected: no ovsdb":  func(s *Status) { s.Switch = SwitchStatus{Error: "no ovsdb"} },
		"switch: odd":                     func(s *Status) { s.Switch.Error = "odd" },
		"tunnel: no way out":              func(s *Status) { s.Switch.Tunnel.Problem = "tunnel: no way out" },
		"store not ready: starting":       func(s *Status) { s.Store = StoreStatus{Error: "store: starting"} },
		"tunnel: uplink":                  func(s *Status) { s.Switch.Tunnel.Problem = "uplink" },
		"agent: refused":                  func(s *Status) { s.Agent.Error = "refused" },
		"Docker not reachable: no socket": func(s *Status) { s.Docker = DockerStatus{Error: "no socket"} },
	} {
		s := well()
		spoil(&s)
		if got := s.problems(); len(got) != 1 || got[0] != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
