package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"

	"nuage/controller/tenant"
	"nuage/ovs"
	"nuage/ovs/flow"
	"nuage/ovs/openflow"
)

// program brings the switch up to date. A new connection, or the time for it, first has
// all flows read back. The connection's number is taken before, so that a connection
// that is replaced meanwhile is read back again.
func (a *Agent) program(ctx context.Context) error {
	st := a.conf.Switch.Status()
	if !st.OpenFlow.Connected {
		return fmt.Errorf("switch: %w: %s", ovs.ErrUnavailable, st.OpenFlow.Error)
	}
	a.mu.Lock()
	suspect := a.suspect
	a.mu.Unlock()
	if suspect || st.Epoch != a.epoch {
		if err := a.readBack(ctx, st.Epoch != a.epoch); err != nil {
			return err
		}
		a.epoch = st.Epoch
	}
	if err := a.equip(ctx); err != nil {
		return err
	}
	gs := a.groups()
	a.countLeaving(ctx, gs)
	if err := a.apply(ctx, gs); err != nil {
		return err
	}
	return a.dismantle(ctx)
}

// readBack replaces what is known of the switch by what it says, and finds all that
// differs. What the switch refused is tried again.
func (a *Agent) readBack(ctx context.Context, first bool) error {
	drift, err := a.readEquipment(ctx)
	if err != nil {
		return err
	}
	stats, err := a.readFlows(ctx)
	if err != nil {
		return err
	}
	actual := make(flow.Set, len(stats))
	for _, s := range stats {
		actual.Put(s.Flow)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	desired := a.compiler.Flows()
	missing, changed, foreign := 0, 0, 0
	expect := func(id flow.Key) bool { // whether a difference is news
		_, ok := a.pending[id]
		return !ok
	}
	pending := map[flow.Key]struct{}{}
	for id, f := range desired {
		have, ok := actual[id]
		if ok && !a.metered(f) {
			delete(actual, id)
			ok = false
		}
		if ok && have.Equal(f) {
			continue
		}
		pending[id] = struct{}{}
		switch {
		case !expect(id):
		case ok:
			changed++
		default:
			missing++
		}
	}
	for id := range actual {
		if _, ok := desired[id]; !ok {
			pending[id] = struct{}{}
			if expect(id) {
				foreign++
			}
		}
	}
	a.pending, a.programmed, a.suspect = pending, actual, false
	clear(a.refused)
	a.status.Readback = time.Now()
	a.counting.keepOnly(actual)
	log := a.conf.Log.WithFields(logrus.Fields{"flows": len(actual), "missing": missing, "changed": changed, "foreign": foreign, "meters": drift})
	switch n := missing + changed + foreign + drift; {
	case first:
		log.Info("connected to the switch and read its flows")
	case n > 0:
		a.status.Repaired += n
		log.Warn("flows or meters had drifted and are being repaired")
	}
	return nil
}

// A group is the differences of one object: they are programmed together or not at all.
type group struct {
	owner tenant.Key
	diff  flow.Diff
}

// groups are all differences that are left, by object. A flow that changes hands is the
// new owner's, so that the groups may be programmed in any order.
func (a *Agent) groups() []group {
	a.mu.Lock()
	defer a.mu.Unlock()
	desired := a.compiler.Flows()
	var gs []group
	at := map[uint64]int{} // by cookie
	in := func(cookie uint64) *flow.Diff {
		i, ok := at[cookie]
		if !ok {
			i = len(gs)
			at[cookie] = i
			k, _ := a.compiler.Owner(cookie)
			gs = append(gs, group{owner: k})
		}
		return &gs[i].diff
	}
	for id := range a.pending {
		want, wanted := desired[id]
		have, exists := a.programmed[id]
		switch {
		case wanted && exists && want.Equal(have), !wanted && !exists:
			delete(a.pending, id)
		case wanted:
			d := in(want.Cookie)
			d.Add = append(d.Add, want)
		default:
			d := in(have.Cookie)
			d.Delete = append(d.Delete, have)
		}
	}
	if len(a.refused) == 0 {
		return gs
	}
	free := gs[:0]
	for _, g := range gs {
		if a.refused[g.owner] == nil {
			free = append(free, g)
		}
	}
	return free
}

// apply programs groups in one bundle. What the switch refuses is halved until the one
// group that it refuses is found; that is left out and noted, and all others are
// programmed. Any other failure ends it: the switch is away.
func (a *Agent) apply(ctx context.Context, gs []group) error {
	if len(gs) == 0 {
		return nil
	}
	var d flow.Diff
	for _, g := range gs {
		d.Add = append(d.Add, g.diff.Add...)
		d.Delete = append(d.Delete, g.diff.Delete...)
	}
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := a.conf.Switch.Apply(bounded, d)
	var refusal *openflow.Error
	switch {
	case err == nil:
		a.record(d)
		return nil
	case !errors.As(err, &refusal):
		// The change may have been made or not: only the switch knows.
		a.distrust()
		return fmt.Errorf("switch: %w", err)
	case len(gs) > 1:
		if err := a.apply(ctx, gs[:len(gs)/2]); err != nil {
			return err
		}
		return a.apply(ctx, gs[len(gs)/2:])
	}
	a.refuse(gs[0].owner, err)
	return nil
}

// record notes what the switch has done.
func (a *Agent) record(d flow.Diff) {
	a.counting.forget(d.Delete)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range d.Delete {
		delete(a.programmed, f.Key())
		delete(a.pending, f.Key())
	}
	for _, f := range d.Add {
		a.programmed.Put(f)
		delete(a.pending, f.Key())
	}
}

func (a *Agent) refuse(k tenant.Key, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refused[k] = err
	a.conf.Log.WithFields(logrus.Fields{"kind": k.Kind, "id": k.ID}).WithError(err).
		Error("the switch refuses the flows of an object; all others are programmed")
}
