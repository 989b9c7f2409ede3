package host

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Iperf measures what one container gets to another by iperf3, in bits a second as the
// receiver saw them, with further flags of the client (-u -b 20M, -P 4).
func (h *Host) Iperf(from, to string, duration time.Duration, flags ...string) float64 {
	h.t.Helper()
	return h.IperfTo(from, h, to, h.IP(to), duration, flags...)
}

// IperfTo is Iperf to a container of any host of the fleet, by one of its addresses.
func (h *Host) IperfTo(from string, server *Host, to, address string, duration time.Duration, flags ...string) float64 {
	h.t.Helper()
	server.Run(server.inside(to, "iperf3", "-s", "-1", "-D", "-p", "5999")...)
	args := h.inside(from, "iperf3", "-c", address, "-p", "5999", "-J", "-t", fmt.Sprint(duration.Seconds()), "-O", "1")
	var out string
	h.Eventually(10*time.Second, "iperf3", func() (err error) {
		if out, err = h.Try(append(args, flags...)...); err != nil && !strings.Contains(out, "refused") {
			h.t.Fatalf("iperf3: %v\n%s", err, out)
		}
		return err
	})
	var r struct {
		End struct {
			Received struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		h.t.Fatalf("iperf3: %v\n%s", err, out)
	}
	return r.End.Received.Rate
}

// Connected is what came of opening TCP connections for a while.
type Connected struct {
	// Made are the connections that were open, had a byte there and back, and were closed.
	Made, Failed int
	// Took is how long that was, P50 and P99 how long a connection took to be open.
	Took, P50, P99 time.Duration
	// Error is the last one's that failed.
	Error string
}

// Connect opens TCP connections from a container to a Prober's "IP:PORT", four at a time.
func (h *Host) Connect(from, address string, duration time.Duration) (c Connected) {
	h.t.Helper()
	out := h.Run(h.inside(from, h.Program("app"), "connect", "-for", duration.String(), address)...)
	if err := json.Unmarshal([]byte(out), &c); err != nil {
		h.t.Fatalf("connect: %v\n%s", err, out)
	}
	return c
}

// inside is a command in a container's network, with the host's programs.
func (h *Host) inside(container string, cmd ...string) []string {
	h.t.Helper()
	return append([]string{"nsenter", "-t", strconv.Itoa(h.Inspect(container).State.Pid), "-n"}, cmd...)
}
