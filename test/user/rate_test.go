package user

import (
	"fmt"
	"testing"
	"time"

	"nuage/test/host"
)

// The rate that is configured is the rate that is had, in both directions; changed and
// removed without an open connection's noticing.
func TestRateLimits(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	d := h.Domain("App1", "front=10.89.1.0/24", "back=10.89.2.0/24")
	a := h.Prober("a", "--network", d.Network("front"))
	b := h.Prober("b", "--network", d.Network("back"))
	limit := func(direction, rate string) {
		t.Helper()
		file := fmt.Sprintf("enterprise: %s\ndomains:\n- name: App1\n  rateLimiters: [{on: {subnet: front}, direction: %s, rate: %s}]\n", d.Enterprise, direction, rate)
		if out, err := h.TryWith(file, nil, "nuagectl", "apply", "-f", "-"); err != nil {
			t.Fatalf("%v\n%s\n%s", err, out, file)
		}
		h.Programmed()
	}
	// No measurement is above the limit; one of three is near it, since the sender and the switch
	// share the machine's processors with whatever else runs.
	measure := func(what string, from, to *host.Prober, want float64) {
		t.Helper()
		for try := 1; ; try++ {
			tcp := h.Iperf(from.Name, to.Name, 4*time.Second) / want
			udp := h.Iperf(from.Name, to.Name, 4*time.Second, "-u", "-b", fmt.Sprint(int(2*want))) / want
			t.Logf("%s %.0f Mbit/s: TCP %.0f %%, UDP %.0f %%", what, want/1e6, 100*tcp, 100*udp)
			above, near := tcp > 1.15 || udp > 1.1, tcp >= 0.85 && udp >= 0.9
			if near && !above {
				return
			}
			if above || try == 3 {
				t.Errorf("%s %.0f Mbit/s: want TCP from 85 to 115 %% and UDP from 90 to 110 %%", what, want/1e6)
				return
			}
		}
	}
	talk, err := a.Talk(b.IP + ":80")
	if err != nil {
		t.Fatal(err)
	}
	limit("ingress", "10mbit")
	measure("sent under a limit of", a, b, 10e6)
	limit("egress", "10mbit")
	measure("received under a limit of", b, a, 10e6)
	limit("egress", "20mbit")
	limit("ingress", "20mbit")
	for _, direction := range []string{"ingress", "egress"} {
		id := h.Get("ratelimiters", "--enterprise", d.Enterprise)
		if len(id) == 0 {
			t.Fatalf("no rate limiters for %s", direction)
		}
		h.Nuagectl("delete", "ratelimiters", id[0]["id"].(string))
	}
	h.Programmed()
	if got := h.Iperf(a.Name, b.Name, 2*time.Second); got < 40e6 {
		t.Errorf("%.0f Mbit/s without a limit", got/1e6)
	}
	// What was lost in the crowd is sent again, later each time.
	h.Eventually(20*time.Second, "the connection that was open meanwhile goes on", func() error { return goesOn(talk) })
}

// goesOn is nil for a connection that was answered a moment ago.
func goesOn(talk host.Talk) error {
	if s, err := talk.State(); err != nil || s.Error != "" || s.Quiet > time.Second {
		return fmt.Errorf("%+v %v", s, err)
	}
	return nil
}
