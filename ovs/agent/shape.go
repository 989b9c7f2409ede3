package agent

import (
	"context"
	"errors"
	"time"

	"nuage/ovs"
)

// shapeAgain is when a bound that could not be set is tried again, unless something happens.
const shapeAgain = 5 * time.Second

// shaped is the bound that was set on a port, as it was asked for and as the port then
// showed it.
type shaped struct {
	asked, got ovs.Shape
	err        error
}

// keepShaped keeps what ports send to their links bounded as the state calls for, until ctx
// ends. The database keeps the bounds, also while ovs-vswitchd is away, and takes long
// enough for them that flows do not wait for it.
func (a *Agent) keepShaped(ctx context.Context) {
	for ctx.Err() == nil {
		a.mu.Lock()
		moved := a.moved
		a.mu.Unlock()
		next := time.Hour
		if changed, failed := a.shapeAll(ctx); failed {
			next = shapeAgain
		} else if changed {
			a.wake() // for those who wait
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-moved:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// shapeAll makes all ports as they should be, once.
func (a *Agent) shapeAll(ctx context.Context) (changed, failed bool) {
	if !a.conf.Switch.Status().OVSDB.Connected {
		return false, true
	}
	for name, want := range a.misshapen(a.conf.Switch.Ports()) {
		now := shaped{asked: want, err: a.shape(ctx, name, want)}
		now.got = a.conf.Switch.Ports()[name].Shape
		a.mu.Lock()
		if have := a.shapes[name]; now.err != nil && (have.err == nil || have.err.Error() != now.err.Error()) {
			a.conf.Log.WithError(now.err).Error("a rate limiter is not in force")
		}
		a.shapes[name] = now
		a.mu.Unlock()
		changed, failed = true, failed || now.err != nil
	}
	return changed, failed
}

// misshapen are the ports whose bound is not what it should be, and what that is. It
// forgets ports that are gone.
func (a *Agent) misshapen(ports map[string]ovs.Port) map[string]ovs.Shape {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.status.Revision == 0 { // nothing known is not the same as nothing wanted
		return nil
	}
	for name := range a.shapes {
		if _, there := ports[name]; !there {
			delete(a.shapes, name)
		}
	}
	turn, wanted := map[string]ovs.Shape{}, a.compiler.Shapes()
	for name, p := range ports {
		want, have := ovs.Shape(wanted[name]), a.shapes[name]
		if want != have.asked || p.Shape != have.got || have.err != nil {
			turn[name] = want
		}
	}
	return turn
}

func (a *Agent) shape(ctx context.Context, name string, want ovs.Shape) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if want == (ovs.Shape{}) {
		return a.conf.Switch.ClearShaping(ctx, name)
	}
	err := a.conf.Switch.SetShaping(ctx, name, want)
	if errors.Is(err, ovs.ErrNoPort) { // which is gone meanwhile
		return nil
	}
	return err
}

// unshaped is why what a port sends is not bounded as it should be yet; nil if it is.
func (a *Agent) unshaped(name string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	want := ovs.Shape(a.compiler.Shapes()[name])
	switch have := a.shapes[name]; {
	case want == (ovs.Shape{}):
		return nil
	case have.asked != want:
		return errors.New("its rate limiter is not on its port")
	default:
		return have.err
	}
}
