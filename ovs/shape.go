package ovs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
)

// Shape bounds what a port sends to its link, by a queue of the kernel's (HTB). The zero
// Shape is none.
type Shape struct {
	Rate uint64 // bits/s, of whole frames
	// Burst is the bits that may leave at once after a pause; 0 for a tenth of a second of
	// the rate, which holds the rate from 1 to 100 Mbit/s.
	Burst uint64
}

const (
	leastRate = 12_000         // what ovs-vswitchd gives any queue: a frame a second
	mostRate  = 34_359_738_360 // it counts bytes a second in 32 bits

	shapeType = "linux-htb"
	// shapeKey marks our rows in tables whose rows nothing deletes by itself; its value is
	// the bridge.
	shapeKey = "nuage-shape"
)

// canonical is the shape as the database has it: in whole bytes.
func (s Shape) canonical() (Shape, error) {
	if s.Rate < leastRate || s.Rate > mostRate {
		return s, fmt.Errorf("a rate of %d bit/s is not from %d to %d", s.Rate, leastRate, mostRate)
	}
	if s.Burst == 0 {
		s.Burst = s.Rate / 10
	}
	if s.Burst > mostRate {
		return s, fmt.Errorf("a burst of %d bits is above %d", s.Burst, mostRate)
	}
	return Shape{s.Rate &^ 7, max(s.Burst&^7, 8)}, nil
}

// SetShaping bounds what the port sends to its link, changes the bound in place, and
// returns when the kernel has it; that it has not is an error. The same again is nothing.
// It does not outlive the port, and outlives a restart of ovs-vswitchd. A QoS of somebody
// else's on the port is taken off. It waits for a connection as EnsurePort does, and for a port
// that is not there it is ErrNoPort.
//
// Use it in the kernel's datapath only. In the userspace datapath ovs-vswitchd sends for
// all ports by one socket, whose buffer holds some 90 frames: one port with a full queue
// makes it drop the frames of all others. A meter does not; docs/limits.md has figures.
func (b *Bridge) SetShaping(ctx context.Context, name string, s Shape) error {
	s, err := s.canonical()
	if err == nil {
		err = b.turnShape(ctx, name, s)
	}
	if err == nil {
		err = b.confirmShape(ctx, name, s)
	}
	if err != nil {
		return fmt.Errorf("port %s: shaping: %w", name, err)
	}
	return nil
}

// ClearShaping takes the bound away; a port without one, or that is not there, is nil.
func (b *Bridge) ClearShaping(ctx context.Context, name string) error {
	err := b.turnShape(ctx, name, Shape{})
	if err != nil && !errors.Is(err, ErrNoPort) {
		return fmt.Errorf("port %s: shaping: %w", name, err)
	}
	return nil
}

func (b *Bridge) turnShape(ctx context.Context, name string, want Shape) error {
	for {
		s, v, err := b.ready(ctx)
		if err != nil {
			return err
		}
		m, exists := v.ports[name]
		if !exists {
			return fmt.Errorf("%w on bridge %s", ErrNoPort, b.conf.Bridge)
		}
		var ops []operation
		if want == (Shape{}) {
			ops = v.shaping.drop(m.port)
		} else {
			ops = v.shaping.turn(m.port, want, b.conf.Bridge)
		}
		if len(ops) == 0 {
			return nil
		}
		if err := b.commit(ctx, s, append(ops, touch(v))); err != nil {
			return err
		}
	}
}

// confirmShape waits until ovs-vswitchd has gone over the database, and asks it what the
// kernel has: a queue that could not be made is in its log only.
func (b *Bridge) confirmShape(ctx context.Context, name string, want Shape) error {
	asked := b.look().root
	for {
		b.mu.Lock()
		root, moved := b.view.root, b.moved
		b.mu.Unlock()
		if root != nil && (asked == nil || root.CurCfg >= asked.NextCfg) {
			break
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", unavailable("ovs-vswitchd has not taken it up in time"), context.Cause(ctx))
		}
	}
	out, err := b.Appctl(ctx, "qos/show", name)
	if err != nil {
		return err
	}
	// A max-rate that is the min-rate is not shown.
	whole, queue := fmt.Sprintf("%s\nmax-rate: %d\n", shapeType, want.Rate), fmt.Sprintf("min-rate: %d\n", want.Rate)
	if !strings.Contains(out, whole) || !strings.Contains(out, queue) {
		return fmt.Errorf("the kernel has not taken it, the log of ovs-vswitchd says why: %q", strings.Join(strings.Fields(out), " "))
	}
	return nil
}

type (
	qosRow struct {
		UUID, Type                       string
		Queues, OtherConfig, ExternalIDs map[string]string
	}
	queueRow struct {
		UUID                     string
		OtherConfig, ExternalIDs map[string]string
	}
)

func (r *qosRow) fields() map[string]target {
	return map[string]target{"type": &r.Type, "queues": &r.Queues, "other_config": &r.OtherConfig, "external_ids": &r.ExternalIDs}
}

func (r *queueRow) fields() map[string]target {
	return map[string]target{"other_config": &r.OtherConfig, "external_ids": &r.ExternalIDs}
}

func (r *qosRow) identify(uuid string)   { r.UUID = uuid }
func (r *queueRow) identify(uuid string) { r.UUID = uuid }

// shaping is the rows of ours, and which of them something refers to.
type shaping struct {
	qos    map[string]*qosRow
	queues map[string]*queueRow
	used   map[string]bool
}

func (t *tables) shaping(bridge string) shaping {
	s := shaping{map[string]*qosRow{}, map[string]*queueRow{}, map[string]bool{}}
	for _, port := range t.ports {
		s.used[port.QoS] = true
	}
	for id, q := range t.qos {
		if q.ExternalIDs[shapeKey] == bridge {
			s.qos[id] = q
			if !s.used[id] {
				continue
			}
		}
		for _, queue := range q.Queues {
			s.used[queue] = true
		}
	}
	for id, q := range t.queues {
		if q.ExternalIDs[shapeKey] == bridge {
			s.queues[id] = q
		}
	}
	return s
}

// shape is what a port has of ours.
func (s shaping) shape(port *portRow) Shape {
	if q := s.queue(port); q != nil {
		rate, _ := strconv.ParseUint(q.OtherConfig["max-rate"], 10, 64)
		burst, _ := strconv.ParseUint(q.OtherConfig["burst"], 10, 64)
		return Shape{rate, burst}
	}
	return Shape{}
}

// queue is the one queue of a port that has a QoS of ours as we make it; else nil.
func (s shaping) queue(port *portRow) *queueRow {
	q := s.qos[port.QoS]
	if q == nil || q.Type != shapeType || len(q.Queues) != 1 {
		return nil
	}
	return s.queues[q.Queues["0"]]
}

// turn is what gives the port a shape; nothing if it has it.
func (s shaping) turn(port *portRow, want Shape, bridge string) []operation {
	rate := strconv.FormatUint(want.Rate, 10)
	whole := map[string]string{"max-rate": rate}
	// With a lower min-rate the queue would borrow from the whole, whose burst is a frame.
	part := map[string]string{"max-rate": rate, "min-rate": rate, "burst": strconv.FormatUint(want.Burst, 10)}
	queue := s.queue(port)
	if queue == nil { // what was there of ours is stray from then on
		mark := textMap(map[string]string{shapeKey: bridge})
		return []operation{
			insert("Queue", "queue", columns{"other_config": textMap(part), "external_ids": mark}),
			insert("QoS", "qos", columns{"type": shapeType, "queues": []any{"map", []any{[]any{0, named("queue")}}},
				"other_config": textMap(whole), "external_ids": mark}),
			update("Port", port.UUID, columns{"qos": named("qos")}),
		}
	}
	var ops []operation
	if !maps.Equal(queue.OtherConfig, part) {
		ops = append(ops, update("Queue", queue.UUID, columns{"other_config": textMap(part)}))
	}
	if !maps.Equal(s.qos[port.QoS].OtherConfig, whole) {
		ops = append(ops, update("QoS", port.QoS, columns{"other_config": textMap(whole)}))
	}
	return ops
}

// drop takes what is ours off a port and deletes it.
func (s shaping) drop(port *portRow) []operation {
	q := s.qos[port.QoS]
	if q == nil {
		return nil
	}
	ops := []operation{update("Port", port.UUID, columns{"qos": set([]string{})}), deleteRow("QoS", q.UUID)}
	for _, queue := range q.Queues {
		if s.queues[queue] != nil {
			ops = append(ops, deleteRow("Queue", queue))
		}
	}
	return ops
}

// strays deletes the rows of ours that nothing refers to: their port was deleted by
// somebody else, or on the way.
func (s shaping) strays() []operation {
	var ops []operation
	for id := range s.qos {
		if !s.used[id] {
			ops = append(ops, deleteRow("QoS", id))
		}
	}
	for id := range s.queues {
		if !s.used[id] {
			ops = append(ops, deleteRow("Queue", id))
		}
	}
	return ops
}
