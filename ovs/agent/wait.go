package agent

import (
	"context"
	"fmt"

	"nuage/controller/tenant"
	"nuage/ovs"
	"nuage/ovs/flow"
	"nuage/ovs/pipeline"
)

// WaitProgrammed returns nil once a vport of this host can be used: its port is confirmed
// by ovs-vswitchd, its rate limiters are in force, its flows are applied, and the switch, asked for them, answers with
// exactly those that the state calls for. What waiting cannot mend (a port that cannot be
// used, an address that is another's, flows that the switch refuses) is an error at once;
// anything else is one at ctx's end, and says what was still missing.
func (a *Agent) WaitProgrammed(ctx context.Context, vportID string) error {
	v := a.vport(vportID)
	if v == nil {
		return fmt.Errorf("vport %s: %w in the state of this host", vportID, tenant.ErrNotFound)
	}
	if v.Host != a.conf.Host {
		return fmt.Errorf("vport %s: it is on host %q, not on this one", v.Name, v.Host)
	}
	if _, err := a.conf.Switch.WaitPort(ctx, v.Interface); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("vport %s: port %s not confirmed by ovs-vswitchd: %w", v.Name, v.Interface, err)
		}
		return fmt.Errorf("vport %s: %w", v.Name, err)
	}
	if err := a.waitApplied(ctx, v); err != nil {
		return fmt.Errorf("vport %s: %w", v.Name, err)
	}
	return nil
}

func (a *Agent) vport(id string) (v *tenant.Vport) {
	a.conf.Feed.View(func(s *tenant.State) { v = s.Vports[id] })
	return v
}

// waitApplied asks for one more round of the loop, so that all that is in the state and
// on the bridge by now has been looked at, and then compares with the switch. It asks
// again after every round until the two agree.
func (a *Agent) waitApplied(ctx context.Context, v *tenant.Vport) error {
	k := tenant.Key{Kind: tenant.KindVport, ID: v.ID}
	a.mu.Lock()
	wanted := a.begun + 1
	a.mu.Unlock()
	a.wake()
	missing := "the agent has not looked at it"
	for {
		a.mu.Lock()
		moved, done, away := a.moved, a.done, a.status.Err
		want := a.compiler.Fragment(k)
		note, refused := a.compiler.Notes()[k], a.refused[k]
		a.mu.Unlock()
		switch {
		case done < wanted:
		case note != "":
			return fmt.Errorf("it has no flows: %s", note)
		case refused != nil:
			return refused
		case away != nil:
			missing = "flows not programmed: " + away.Error()
		case len(want) == 0:
			return fmt.Errorf("%w in the state of this host any more", tenant.ErrNotFound)
		default:
			if err := a.unshaped(v.Interface); err != nil {
				missing = err.Error()
				break
			}
			lack, err := a.lacks(ctx, k, want)
			if err == nil && lack == 0 {
				return nil
			}
			missing = fmt.Sprintf("%d of its %d flows not read back from the switch", lack, len(want))
			if err != nil {
				missing = "flows not read back: " + err.Error()
			}
			a.doubt(done)
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", missing, context.Cause(ctx))
		}
	}
}

// doubt has everything read back, unless a round has gone by since: then what was
// compared may have been out of date.
func (a *Agent) doubt(round uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.begun == round {
		a.suspect = true
		a.wake()
	}
}

// lacks counts the flows that the switch has otherwise than wanted.
func (a *Agent) lacks(ctx context.Context, k tenant.Key, want []flow.Flow) (int, error) {
	cookie := pipeline.Cookie(k)
	stats, err := a.conf.Switch.Flows(ctx, ovs.FlowFilter{Cookie: &cookie})
	if err != nil {
		return 0, err
	}
	have := make(flow.Set, len(stats))
	for _, s := range stats {
		have.Put(s.Flow)
	}
	d := flow.NewDiff(have, flow.NewSet(want...))
	return len(d.Add) + len(d.Delete), nil
}

// wake makes the loop go round once more.
func (a *Agent) wake() {
	select {
	case a.kick <- struct{}{}:
	default:
	}
}
