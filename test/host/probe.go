package host

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Question is whether a container reaches an address ("IP:PORT") by tcp, udp or sctp.
type Question struct{ Protocol, Address string }

// Prober is a container that serves TCP and UDP on a few ports, SCTP on all, and answers what
// it can reach, hundreds of questions at once.
type Prober struct {
	Name, IP string

	h      *Host
	client http.Client
}

// Prober starts one with the given flags of docker run. It is removed after the test.
func (h *Host) Prober(name string, flags ...string) *Prober {
	h.t.Helper()
	dir, err := os.MkdirTemp(h.Dir(), "probe") // the same path inside the host and outside
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { os.RemoveAll(dir) })
	full := h.Name(name)
	h.t.Cleanup(func() { h.TryDocker("rm", "-f", full) })
	args := append([]string{"run", "-d", "--name", full, "-v", dir + ":/probe"}, flags...)
	h.Docker(append(args, Image, "app", "prober", "-ports", "80,81,5432,8080", "/probe/s")...)
	p := &Prober{Name: full, h: h}
	p.client = http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(dir, "s"))
		}}}
	h.Eventually(20*time.Second, name+" answers", func() error {
		_, err := p.call("GET", "/seen", nil)
		return err
	})
	p.IP = h.IP(full)
	return p
}

// Ask returns an answer a question: "open", "silent", "refused", "unreachable",
// or "sent" for sctp.
func (p *Prober) Ask(timeout time.Duration, questions ...Question) ([]string, error) {
	body, err := json.Marshal(map[string]any{"Timeout": timeout, "Questions": questions})
	if err != nil {
		return nil, err
	}
	var answers []string
	out, err := p.call("POST", "/probe", body)
	if err == nil {
		err = json.Unmarshal(out, &answers)
	}
	if err == nil && len(answers) != len(questions) {
		err = fmt.Errorf("%s: %d answers to %d questions", p.Name, len(answers), len(questions))
	}
	return answers, err
}

// Seen are the sctp datagrams that arrived since the last call, as "SOURCE>PORT".
func (p *Prober) Seen() ([]string, error) {
	var seen []string
	out, err := p.call("GET", "/seen", nil)
	if err == nil {
		err = json.Unmarshal(out, &seen)
	}
	return seen, err
}

// Talk is a TCP connection on which a byte is sent every 20 ms and comes back.
type Talk struct {
	p      *Prober
	number int
}

// Talk opens one to "IP:PORT".
func (p *Prober) Talk(address string) (Talk, error) {
	out, err := p.call("POST", "/talk", []byte(address))
	t := Talk{p: p}
	if err == nil {
		err = json.Unmarshal(out, &t.number)
	}
	return t, err
}

// Talked is how a Talk goes.
type Talked struct {
	// Sent and Back are bytes; Quiet is how long nothing has come back, Longest how long at
	// most since the last call.
	Sent, Back     int
	Quiet, Longest time.Duration
	// Error is why it has ended; empty while it has not.
	Error string
}

// State is how it goes.
func (t Talk) State() (Talked, error) {
	var s Talked
	out, err := t.p.call("GET", fmt.Sprintf("/talk?n=%d", t.number), nil)
	if err == nil {
		err = json.Unmarshal(out, &s)
	}
	return s, err
}

func (p *Prober) call(method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequest(method, "http://prober"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, resp.Status, out)
	}
	return out, err
}
