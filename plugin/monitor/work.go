package monitor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"

	"nuage/controller/tenant"
	"nuage/driver"
)

// task is a container that is being looked at, or will be again. Guarded by Monitor.mu.
type task struct {
	again   bool          // something happened since the last look
	wake    chan struct{} // ends a pause
	started time.Time     // when Docker said that it started, if that is yet to be answered
	told    string        // why it is not attached, as logged
}

// touch has a container looked at: one look at a time, and one after the last touch.
func (m *Monitor) touch(ctx context.Context, id string, started time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tasks[id]
	if t == nil {
		t = &task{wake: make(chan struct{}, 1)}
		m.tasks[id] = t
		m.work.Go(func() { m.serve(ctx, id, t) })
	} else {
		t.again = true
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
	if !started.IsZero() {
		t.started = started
	}
}

// serve looks at a container until all is well with it.
func (m *Monitor) serve(ctx context.Context, id string, t *task) {
	for failures := 0; ; failures++ {
		err := m.look(ctx, id, t)
		m.mu.Lock()
		again := t.again
		t.again = false
		if err == nil && !again || ctx.Err() != nil {
			delete(m.tasks, id)
			m.mu.Unlock()
			return
		}
		m.mu.Unlock()
		if again {
			failures = -1
			continue
		}
		select {
		case <-ctx.Done():
		case <-t.wake:
			failures = -1
		case <-time.After(pause(err, failures)):
		}
	}
}

// pause is how long to wait before the next attempt: not long for what comes back by
// itself, longer for what somebody has to mend.
func pause(err error, failures int) time.Duration {
	first, longest := 500*time.Millisecond, 15*time.Second
	if errors.Is(err, tenant.ErrUnavailable) {
		first, longest = 100*time.Millisecond, 2*time.Second
	}
	return min(first<<min(failures, 8), longest)
}

func (m *Monitor) look(ctx context.Context, id string, t *task) error {
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	c, said, err := m.inspect(ctx, id)
	if err != nil {
		// That Docker is away is said where the events are followed, and of this container,
		// which may not be ours, nothing is known.
		if !client.IsErrConnectionFailed(err) {
			m.Log.WithError(err).WithField("container", fmt.Sprintf("%.12s", id)).Warn("container not looked at; trying again")
		}
		return err
	}
	limited, cancel := context.WithTimeout(ctx, attachTime)
	defer cancel()
	if c == nil {
		return m.tell(t, id, m.Driver.Detach(limited, id))
	}
	if err = read(said, c); err == nil {
		err = m.Driver.Attach(limited, *c)
	}
	if err == nil {
		m.answered(t, c)
		return nil
	}
	if ctx.Err() != nil {
		return err
	}
	// It may just have ended, or have started anew, and then that is the reason.
	if now, _, gone := m.inspect(ctx, id); gone == nil && (now == nil || now.SandboxKey != c.SandboxKey) {
		m.touch(ctx, id, time.Time{})
		return err
	}
	m.tell(t, c.ContainerName, err)
	told, cancel := context.WithTimeout(ctx, attachTime)
	defer cancel()
	if silent := m.Driver.Refuse(told, *c, err); silent != nil {
		m.Log.WithError(silent).WithField("container", c.ContainerName).Debug("why it is not attached is not in the list of vports")
	}
	return err
}

// inspect is a container that is to be attached, and what it says; nil for any other.
func (m *Monitor) inspect(ctx context.Context, id string) (*driver.Direct, map[string]string, error) {
	limited, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	c, err := m.api.Load().ContainerInspect(limited, id)
	if errdefs.IsNotFound(err) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("docker inspect %.12s: %w", id, err)
	}
	if c.ContainerJSONBase == nil || c.State == nil || c.HostConfig == nil || c.Config == nil || c.NetworkSettings == nil {
		return nil, nil, fmt.Errorf("docker inspect %.12s: half of the answer is missing", id)
	}
	said := metadata(c.Config.Env, c.Config.Labels)
	if !runs(c) || !c.HostConfig.NetworkMode.IsNone() || !place(said) {
		return nil, nil, nil
	}
	key := c.NetworkSettings.SandboxKey
	return &driver.Direct{ContainerID: c.ID, ContainerName: trim(c.Name), SandboxKey: key, Netns: m.Netns(key)}, said, nil
}

// runs tells whether the container has a namespace to be attached: a paused one has, one
// that waits to be restarted has not, though Docker calls both running.
func runs(c container.InspectResponse) bool {
	return c.State.Running && !c.State.Restarting && c.State.Pid > 0 && c.NetworkSettings.SandboxKey != ""
}

func trim(name string) string {
	if name != "" && name[0] == '/' {
		return name[1:]
	}
	return name
}

// tell logs why a container is not attached or detached, once.
func (m *Monitor) tell(t *task, name string, err error) error {
	if err == nil {
		return nil
	}
	if text := err.Error(); text != t.told {
		t.told = text
		m.Log.WithError(err).WithField("container", name).Error("container not attached; trying again")
	}
	return err
}

// answered logs how long a start has waited for the network.
func (m *Monitor) answered(t *task, c *driver.Direct) {
	m.mu.Lock()
	started := t.started
	t.started = time.Time{}
	m.mu.Unlock()
	if !started.IsZero() {
		m.Log.WithField("container", c.ContainerName).WithField("after", time.Since(started).Round(100*time.Microsecond)).Debug("container can use its network")
	}
}
