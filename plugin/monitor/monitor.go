// Package monitor attaches the containers that Docker gives no network (--net=none) and
// that say in their environment or labels where they belong. Docker's events only tell it
// when to look: what it does follows from what a container is then, and from what the
// driver has attached.
//
// It never takes silence for an answer: nothing is detached because a list failed or an
// event was missed, only because Docker says that the container does not run. It never
// decides about addresses or flows, and makes no link itself.
package monitor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"
	"github.com/sirupsen/logrus"

	"nuage/driver"
)

// Driver attaches; see driver.Driver. What is done already, and what is unknown to Detach,
// is nil.
type Driver interface {
	Attach(context.Context, driver.Direct) error
	Refuse(ctx context.Context, c driver.Direct, cause error) error
	Detach(ctx context.Context, containerID string) error
	Containers() ([]string, error)
}

// Config is what a Monitor needs. Every may be left out.
type Config struct {
	Socket string // Docker's
	Driver Driver
	// Netns is the path at which this process finds the network namespace that Docker calls
	// by key.
	Netns func(key string) string
	Every time.Duration // between looks at all containers, a minute by default
	Log   logrus.FieldLogger
}

const (
	// listTime bounds a list or a look at one container.
	listTime = 5 * time.Second
	// attachTime bounds one attempt.
	attachTime = 8 * time.Second
	// atOnce is how many containers are worked on at a time: most of it is waiting.
	atOnce = 8
)

// Monitor watches one Docker.
type Monitor struct {
	Config
	api   atomic.Pointer[client.Client]
	since string // the time of the last event, as Docker wants it
	lost  string // why Docker was not followed, as logged

	slots chan struct{}
	work  sync.WaitGroup
	mu    sync.Mutex
	tasks map[string]*task
}

// New makes a monitor; it does nothing until Run.
func New(c Config) *Monitor {
	if c.Every == 0 {
		c.Every = time.Minute
	}
	return &Monitor{Config: c, slots: make(chan struct{}, atOnce), tasks: map[string]*task{}}
}

// Run follows Docker until ctx ends, and returns when what it was doing then is done or
// undone. Docker may come and go.
func (m *Monitor) Run(ctx context.Context) error {
	defer m.work.Wait()
	for ctx.Err() == nil {
		// A client agrees on the API's version once, and this may be another Docker now.
		api, err := client.NewClientWithOpts(client.WithHost("unix://"+m.Socket), client.WithAPIVersionNegotiation())
		if err != nil {
			return fmt.Errorf("docker client: %w", err)
		}
		m.api.Store(api)
		err = m.follow(ctx, api)
		api.Close() // of its idle connections: who still uses it, may
		if ctx.Err() != nil {
			break
		}
		if text := err.Error(); text != m.lost {
			m.lost = text
			m.Log.WithError(err).Warn("docker is not followed; containers stay as they are meanwhile")
		}
		select {
		case <-ctx.Done():
		case <-time.After(250 * time.Millisecond):
		}
	}
	return nil
}

// follow listens from where it left off and looks at all containers, until the stream ends.
// The stream is open before the list: what happens in between is in one of them.
func (m *Monitor) follow(ctx context.Context, api *client.Client) error {
	listening, cancel := context.WithCancel(ctx)
	defer cancel()
	about := filters.NewArgs(filters.Arg("type", string(events.ContainerEventType)))
	for _, action := range []events.Action{events.ActionStart, events.ActionDie, events.ActionRename, events.ActionDestroy} {
		about.Add("event", string(action))
	}
	stream, errs := api.Events(listening, events.ListOptions{Since: m.since, Filters: about})
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		select {
		case e := <-stream:
			m.since = fmt.Sprintf("%d.%09d", e.TimeNano/1e9, e.TimeNano%1e9)
			var started time.Time
			if e.Action == events.ActionStart {
				started = time.Unix(0, e.TimeNano)
			}
			m.touch(ctx, e.Actor.ID, started)
		case err := <-errs:
			if err == nil {
				err = errors.New("the stream ended")
			}
			return fmt.Errorf("docker events: %w", err)
		case <-look.C:
			look.Reset(m.Every)
			if err := m.list(ctx, api); err != nil {
				return err
			}
			if m.lost != "" {
				m.lost = ""
				m.Log.Info("docker is followed again")
			}
		}
	}
}

// list has all containers looked at that may have to be attached or detached.
func (m *Monitor) list(ctx context.Context, api *client.Client) error {
	limited, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	running, err := api.ContainerList(limited, container.ListOptions{})
	if err != nil {
		return fmt.Errorf("docker's list of containers: %w", err)
	}
	known, err := m.Driver.Containers()
	if err != nil {
		return err
	}
	ids := map[string]bool{}
	for _, c := range running {
		if container.NetworkMode(c.HostConfig.NetworkMode).IsNone() {
			ids[c.ID] = true
		}
	}
	for _, id := range known {
		ids[id] = true
	}
	for id := range ids {
		m.touch(ctx, id, time.Time{})
	}
	return nil
}
