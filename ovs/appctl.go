package ovs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// appctlTime bounds a command of a caller without a deadline of its own.
	appctlTime = 10 * time.Second
	// appctlMost bounds an answer: the conntrack table of a busy host is not for this.
	appctlMost = 16 << 20
)

// Appctl has ovs-vswitchd run one of the commands that ovs-appctl(8) names, and returns
// what it prints. A refusal is an error with the command's name and ovs-vswitchd's words;
// that it does not answer is ErrUnavailable. It needs neither Run nor a bridge.
func (b *Bridge) Appctl(ctx context.Context, command string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, appctlTime)
	defer cancel()
	out, err := b.appctl(ctx, command, args)
	if err != nil {
		return "", fmt.Errorf("ovs-vswitchd: %s: %w", command, err)
	}
	return out, nil
}

func (b *Bridge) appctl(ctx context.Context, command string, args []string) (string, error) {
	socket, err := b.control()
	if err != nil {
		return "", err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return "", unavailable(fmt.Sprintf("not reachable at %s: start openvswitch-switch (%v)", socket, err))
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	answer, err := converse(conn, command, args)
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("%w (%w)", unavailable("no answer in time"), context.Cause(ctx))
	case err != nil:
		return "", fmt.Errorf("%w: %w", unavailable("the connection to "+socket+" was lost"), err)
	case answer.Error != nil:
		return "", errors.New(strings.TrimSpace(*answer.Error))
	}
	return answer.Result, nil
}

// control is the control socket: it has the process's number in its name.
func (b *Bridge) control() (string, error) {
	path := filepath.Join(b.conf.RunDir, "ovs-vswitchd.pid")
	text, err := os.ReadFile(path)
	if err != nil {
		return "", unavailable(fmt.Sprintf("it does not run: start openvswitch-switch (%v)", err))
	}
	pid, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil {
		return "", unavailable(fmt.Sprintf("%s holds no process number: %v", path, err))
	}
	return filepath.Join(b.conf.RunDir, fmt.Sprintf("ovs-vswitchd.%d.ctl", pid)), nil
}

// A reply is the answer to a command; one of its members is there.
type reply struct {
	Result string
	Error  *string
}

// converse runs one command on a connection of its own.
func converse(conn net.Conn, command string, args []string) (reply, error) {
	if args == nil {
		args = []string{} // ovs-vswitchd hangs up on null
	}
	request, err := json.Marshal(map[string]any{"id": 0, "method": command, "params": args})
	if err != nil {
		return reply{}, err
	}
	if _, err := conn.Write(request); err != nil {
		return reply{}, err
	}
	limited := &io.LimitedReader{R: conn, N: appctlMost}
	var r reply
	if err := json.NewDecoder(limited).Decode(&r); err != nil {
		if limited.N == 0 {
			return r, fmt.Errorf("an answer of more than %d bytes", appctlMost)
		}
		return r, err
	}
	return r, nil
}

// Trace is what ofproto/trace says of a packet on the bridge, in ovs-ofctl's notation with
// in_port. Each of states is what one ct action with a table finds, in order ("trk,est");
// a further one finds "trk,new". Flows and counters stay as they are.
func (b *Bridge) Trace(ctx context.Context, packet string, states ...string) (string, error) {
	if strings.HasPrefix(packet, "-") { // it would be taken for an option, or for a bridge
		return "", fmt.Errorf("trace: %q is no packet", packet)
	}
	args := []string{b.conf.Bridge, packet}
	for _, s := range states {
		args = append(args, "--ct-next", s)
	}
	return b.Appctl(ctx, "ofproto/trace", args...)
}
