package ovs

import (
	"context"
	"fmt"
	"time"
)

const (
	echoEvery    = 5 * time.Second // a peer that does not answer within as much again is dead
	repairTime   = 5 * time.Second
	repairPause  = 100 * time.Millisecond // between two repairs, lest we race another manager
	databaseName = "Open_vSwitch"
)

// keepDB connects to ovsdb-server, again and again, until ctx ends.
func (b *Bridge) keepDB(ctx context.Context) error {
	var p pause
	for ctx.Err() == nil {
		s, err := connect(ctx, b.conf.DB)
		if err == nil {
			p = pause{}
			err = b.serve(ctx, s)
			s.close()
		}
		if ctx.Err() != nil {
			break
		}
		b.lost(err)
		p.wait(ctx, nil)
	}
	b.lost(errStopped)
	return ctx.Err()
}

// lost notes that there is no session, and why.
func (b *Bridge) lost(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.session = nil
	reason := fmt.Sprintf("ovsdb-server is not reachable at %s: start openvswitch-switch (%v)", b.conf.DB, err)
	if b.db.set(false, reason) && err != errStopped {
		b.conf.Log.WithError(err).WithField("socket", b.conf.DB).Warn("no connection to ovsdb-server")
		b.move()
	}
}

// serve follows the database and keeps the bridge until the session ends.
func (b *Bridge) serve(ctx context.Context, s *session) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go probe(ctx, cancel, func(ctx context.Context) error {
		_, err := s.call(ctx, "echo")
		return err
	})
	b.refresh(s)
	for {
		wait, err := b.repair(ctx, s)
		if err != nil {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-s.gone:
			err = s.lost()
		case <-s.dirty:
			b.refresh(s)
		case <-timer.C:
		}
		timer.Stop()
		if err != nil {
			return err
		}
	}
}

// probe ends a connection whose other side is there but does not answer.
func probe(ctx context.Context, cancel context.CancelCauseFunc, echo func(context.Context) error) {
	tick := time.NewTicker(echoEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		ctx, done := context.WithTimeout(ctx, echoEvery)
		if err := echo(ctx); err != nil {
			cancel(fmt.Errorf("it does not answer: %w", err))
		}
		done()
	}
}

// refresh takes the view from the session's tables.
func (b *Bridge) refresh(s *session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-s.gone:
		return
	default:
	}
	s.mu.Lock()
	v := s.tables.look(b.conf.Bridge)
	s.mu.Unlock()
	v.follow(b.view)
	same := samePorts(b.view, v) && b.session == s
	b.numbers.see(b.view, v, time.Now())
	settled := v.settled() != b.view.settled()
	b.view, b.session = v, s
	if b.db.set(true, "") {
		b.conf.Log.WithField("socket", b.conf.DB).Info("connected to ovsdb-server")
		same = false
	}
	signal(b.redial)
	switch {
	case !same:
		b.move()
	case settled:
		close(b.moved)
		b.moved = make(chan struct{})
	}
}
