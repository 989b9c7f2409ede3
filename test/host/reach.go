package host

import (
	"fmt"
	"strings"
)

// Reaches fails the test unless the container gets an answer to every ping, with this ttl.
func (h *Host) Reaches(container, address string, ttl int) {
	h.t.Helper()
	out := h.Pings(container, "-c", "2", "-i", "50ms", address)
	if want := fmt.Sprintf(" ttl=%d ", ttl); out != "" && strings.Count(out, want) != 2 {
		h.t.Errorf("%s pings %s, want two answers with%s:\n%s", container, address, want, out)
	}
}

// Pings is what the ping wrote that lost nothing. It is tried three times before the test
// fails, and then "": a switch without a processor of its own loses a stray packet beside
// other tests, a way that is broken loses all of them. What must not lose a single one is
// tested where nothing else runs.
func (h *Host) Pings(container string, args ...string) string {
	h.t.Helper()
	var out string
	var err error
	for range 3 {
		if out, err = h.TryDocker(append([]string{"exec", container, "app", "ping"}, args...)...); err == nil {
			return out
		}
	}
	h.t.Errorf("%s does not reach %s, thrice: %v\n%s", container, args[len(args)-1], err, out)
	return ""
}

// ReachesNot fails the test if one single ping is answered.
func (h *Host) ReachesNot(container, address string) {
	h.t.Helper()
	out, err := h.TryDocker("exec", container, "app", "ping", "-c", "3", "-i", "50ms", "-W", "400ms", address)
	if err == nil || !strings.Contains(out, "received=0") {
		h.t.Errorf("%s must not reach %s: %v\n%s", container, address, err, out)
	}
}

// Serves fails the test unless client gets server's page at address and is seen with its
// own address: nothing on the way translates. The server may be on another host.
func (h *Host) Serves(client, clientIP, server, address string) {
	h.t.Helper()
	out, err := h.TryDocker("exec", client, "app", "get", "http://"+address+"/")
	if want := server + " sees " + clientIP; err != nil || out != want {
		h.t.Errorf("%s gets http://%s/: %v\n%s\nwant: %s", client, address, err, out, want)
	}
}
