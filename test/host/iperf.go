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
	inside := func(container string) []string {
		return []string{"nsenter", "-t", strconv.Itoa(h.Inspect(container).State.Pid), "-n"}
	}
	server := append(inside(to), "iperf3", "-s", "-1", "-D", "-p", "5999")
	h.Run(server...)
	args := append(inside(from), "iperf3", "-c", h.IP(to), "-p", "5999", "-J", "-t", fmt.Sprint(duration.Seconds()), "-O", "1")
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
