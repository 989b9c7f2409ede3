package openflow

import (
	"context"
	"fmt"

	"nuage/ovs/flow"
)

const (
	bundleOpen    = 0
	bundleCommit  = 4
	bundleDiscard = 6
	bundleFlags   = 3 // atomic, ordered
)

// Apply deletes and adds flows, in that order, as one: packets meet all of the change or
// none, and if the switch refuses a part, nothing is changed and the error is an *Error
// that holds the flow. An add of an existing identity replaces its value and keeps its
// counters; a delete of what is not there is fine. If the context ends or the
// connection breaks, the change may have been made or not, but never in part.
func (c *Conn) Apply(ctx context.Context, d flow.Diff) error {
	if d.Empty() {
		return nil
	}
	if err := c.apply(ctx, d); err != nil {
		return fmt.Errorf("apply flows: %w", err)
	}
	return nil
}

func (c *Conn) apply(ctx context.Context, d flow.Diff) error {
	n := len(d.Delete) + len(d.Add)
	k := c.begin(n + 3)
	defer k.end()
	id := c.bundle.Add(1)

	b := make([]byte, 0, 64+256*n)
	b = appendBundleControl(b, k.first, id, bundleOpen)
	b, err := appendBundle(b, k.first+1, id, d)
	if err != nil {
		return err
	}
	barrier, commit := k.last-1, k.last
	if err := c.send(ctx, appendBarrier(b, barrier)); err != nil {
		return err
	}
	// The switch leaves a message that it refuses out of the bundle and would commit
	// the rest: only the barrier tells that all of it is in.
	if _, err := k.await(ctx, barrier); err != nil {
		c.discard(id)
		return err
	}
	if k.refused != nil {
		c.discard(id)
		return k.blame(d)
	}
	if err := c.send(ctx, appendBundleControl(nil, commit, id, bundleCommit)); err != nil {
		c.discard(id)
		return err
	}
	if _, err := k.await(ctx, commit); err != nil {
		if k.refused != nil {
			return k.blame(d)
		}
		return err
	}
	return nil
}

// blame is the refusal of a message, with the flow in that message.
func (k *call) blame(d flow.Diff) error {
	i := int(k.at) - int(k.first) - 1
	switch {
	case i < 0:
	case i < len(d.Delete):
		k.refused.Flow, k.refused.Delete = &d.Delete[i], true
	case i < len(d.Delete)+len(d.Add):
		k.refused.Flow = &d.Add[i-len(d.Delete)]
	}
	return k.refused
}

// appendBundle appends the messages that put the flows into a bundle.
func appendBundle(b []byte, xid, id uint32, d flow.Diff) ([]byte, error) {
	add := func(command byte, f *flow.Flow) (err error) {
		start := len(b)
		b = appendBundleHeader(b, typeBundleAdd, xid, id, 0)
		if b, err = appendFlowMod(b, xid, command, f); err != nil {
			return fmt.Errorf("flow %v: %w", f, err)
		}
		finish(b, start)
		xid++
		return nil
	}
	for i := range d.Delete {
		if err := add(flowDeleteStrict, &d.Delete[i]); err != nil {
			return nil, err
		}
	}
	for i := range d.Add {
		if err := add(flowAdd, &d.Add[i]); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func appendBundleHeader(b []byte, typ uint8, xid, id uint32, control uint16) []byte {
	b = be.AppendUint32(appendHeader(b, typ, xid), id)
	return be.AppendUint32(b, uint32(control)<<16|bundleFlags)
}

func appendBundleControl(b []byte, xid, id uint32, control uint16) []byte {
	return finish(appendBundleHeader(b, typeBundleControl, xid, id, control), len(b))
}

// discard frees what the switch holds of a bundle that will not be committed.
func (c *Conn) discard(id uint32) {
	k := c.begin(1) // an xid of its own; nobody waits for the answer
	k.end()
	c.later(appendBundleControl(nil, k.first, id, bundleDiscard))
}
