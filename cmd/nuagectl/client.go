package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// answerTime is longer than the server's own limit for its longest request.
const answerTime = 3 * time.Minute

const (
	// A plugin that has just been enabled serves after some 100 ms: it is asked again
	// soon, then less and less often.
	minPause, maxPause = 50 * time.Millisecond, 500 * time.Millisecond
	// quietTime passes before the user is told that there is something to wait for.
	quietTime = time.Second
)

// client makes requests to the API of one controller.
type client struct {
	http *http.Client
	base string // "http://nuage" over the socket
	name string // for messages
	wait patience
}

// patience is how long a command waits for a plugin that does not serve yet, over all of
// its requests.
type patience struct {
	limit time.Duration
	since time.Time
	tell  io.Writer
	told  bool
}

func newClient(socket, server string, wait patience) (*client, error) {
	if server == "" {
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}
		return &client{&http.Client{Transport: &http.Transport{DialContext: dial}, Timeout: answerTime}, "http://nuage", socket, wait}, nil
	}
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("--server %q is not a URL such as https://HOST:PORT", server)
	}
	return &client{&http.Client{Timeout: answerTime}, u.Scheme + "://" + u.Host, server, wait}, nil
}

// refusal is an answer of the controller that is not a success.
type refusal struct {
	status int
	text   string
}

func (e *refusal) Error() string { return e.text }

// do makes one request and returns the answer's body. A status that is not a success is a
// refusal in the controller's words, and the body comes with it. A request that nothing
// was done about, since the plugin does not serve yet, is made again while patience lasts.
func (c *client) do(ctx context.Context, method, path string, query url.Values, body []byte) ([]byte, error) {
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		text, undone, err := c.once(ctx, method, path, query, body)
		if !undone || !c.wait.more(ctx, pause, err) {
			return text, err
		}
	}
}

// more waits before the next attempt. It is false when there is to be none.
func (p *patience) more(ctx context.Context, pause time.Duration, err error) bool {
	passed := time.Since(p.since)
	if passed >= p.limit {
		return false
	}
	if !p.told && passed >= quietTime {
		p.told = true
		fmt.Fprintf(p.tell, "nuagectl: waiting, for %s at most: %s\n", p.limit, escapeLines(err.Error()))
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(min(pause, p.limit-passed)):
		return true
	}
}

// once makes one request once. With an error, undone tells that the same request may be
// made again, since nothing was done about this one and that may soon be different.
func (c *client) once(ctx context.Context, method, path string, query url.Values, body []byte) (text []byte, undone bool, err error) {
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, false, fmt.Errorf("request: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED), c.unreachable(err)
	}
	defer resp.Body.Close()
	text, err = io.ReadAll(resp.Body)
	if err != nil {
		return nil, false, c.unreachable(err)
	}
	if resp.StatusCode/100 == 2 {
		return text, false, nil
	}
	// nuage's own resources say "error", VSD's "description".
	var said struct{ Error, Description string }
	if err := json.Unmarshal(text, &said); err != nil || said.Error+said.Description == "" {
		return nil, false, fmt.Errorf("%s: %s answers %s: is this nuage?", c.name, path, resp.Status)
	}
	undone = resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != ""
	return text, undone, &refusal{resp.StatusCode, said.Error + said.Description}
}

func (c *client) get(ctx context.Context, path string, query url.Values, into any) error {
	text, err := c.do(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %s: %w", c.name, path, err)
	}
	return nil
}

// unreachable says what to do about a request that had no answer.
func (c *client) unreachable(err error) error {
	overSocket := c.base == "http://nuage"
	switch {
	case overSocket && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)):
		return fmt.Errorf("nuage is not running on this host (%s): docker plugin enable nuage-plugin, or systemctl start nuage-plugin", c.name)
	case overSocket && errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no permission for %s: run nuagectl as root", c.name)
	}
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err // without the URL, which says "http://nuage"
	}
	return fmt.Errorf("%s: %w", c.name, err)
}
