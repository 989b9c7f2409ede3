package ovs

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// ConntrackLimit is how many connections a zone may have, and how many it has.
type ConntrackLimit struct{ Limit, Count uint32 }

// SetConntrackLimit bounds the connections of a zone. A connection beyond the limit is not
// committed: its packets pass the ct(commit) in the userspace datapath and stay +new, and
// the kernel drops them there. A limit of 0 removes the bound. The same again is nothing. In the userspace
// datapath connections that were there before a zone's first limit are not counted, and the
// limits die with ovs-vswitchd: set them anew at each Status.Epoch.
//
// The default limit, of zones without one, is never touched: to ovs-vswitchd a default of 0
// is not unlimited, but no connection for anybody.
func (b *Bridge) SetConntrackLimit(ctx context.Context, zone uint16, limit uint32) error {
	dp, err := b.dpctl()
	if err == nil {
		if limit == 0 {
			_, err = b.Appctl(ctx, "dpctl/ct-del-limits", dp, fmt.Sprintf("zone=%d", zone))
		} else {
			_, err = b.Appctl(ctx, "dpctl/ct-set-limits", dp, fmt.Sprintf("zone=%d,limit=%d", zone, limit))
		}
	}
	if err != nil {
		return fmt.Errorf("conntrack zone %d: %w", zone, err)
	}
	return nil
}

// ConntrackLimits are the zones of the bridge's datapath that have a limit.
func (b *Bridge) ConntrackLimits(ctx context.Context) (map[uint16]ConntrackLimit, error) {
	dp, err := b.dpctl()
	if err != nil {
		return nil, fmt.Errorf("conntrack: %w", err)
	}
	out, err := b.Appctl(ctx, "dpctl/ct-get-limits", dp)
	if err != nil {
		return nil, fmt.Errorf("conntrack: %w", err)
	}
	return parseLimits(out)
}

func parseLimits(out string) (map[uint16]ConntrackLimit, error) {
	limits := map[uint16]ConntrackLimit{}
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "default ") {
			continue
		}
		var zone uint16
		var l ConntrackLimit
		if _, err := fmt.Sscanf(line, "zone=%d,limit=%d,count=%d", &zone, &l.Limit, &l.Count); err != nil {
			return nil, fmt.Errorf("conntrack: limit %q: %w", line, err)
		}
		limits[zone] = l
	}
	return limits, nil
}

// dpctl is the name by which ovs-vswitchd knows the bridge's datapath.
func (b *Bridge) dpctl() (string, error) {
	switch datapath := b.Status().Datapath; datapath {
	case System:
		return "system@ovs-system", nil
	case Netdev:
		return "netdev@ovs-netdev", nil
	case "":
		return "", unavailable(fmt.Sprintf("bridge %s is not there yet", b.conf.Bridge))
	default:
		return "", errors.New("datapath " + datapath + " has no limits")
	}
}
