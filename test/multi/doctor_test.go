package multi

import (
	"strings"
	"testing"
	"time"

	"nuage/test/host"
)

// Doctor calls every host of a healthy fleet healthy, and tells how long the certificate of one
// that has joined counts.
func TestDoctorOfAFleet(t *testing.T) {
	t.Parallel()
	f := host.SharedFleet(t)
	for n := 1; n <= host.Size; n++ {
		h := f.Host(n)
		h.Eventually(20*time.Second, "a healthy host", func() error {
			out, err := h.Try("nuagectl", "doctor")
			joined := n > 1
			if err != nil || strings.Contains(out, "this host counts until") != joined || !strings.Contains(out, " has the VTEP ") {
				return errorf("host %d: %v\n%s", n, err, out)
			}
			return nil
		})
	}
}
