package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	"github.com/sirupsen/logrus"
)

const (
	enginePoll    = time.Minute
	engineRetry   = 2 * time.Second // after a look that failed
	engineTimeout = 5 * time.Second
	// engineSettle is how long an event's consequences have to appear in Docker's lists.
	engineSettle = 200 * time.Millisecond
)

// Attached is an endpoint of a running container, as Docker lists it.
type Attached struct {
	EndpointID, NetworkID, ContainerID, ContainerName string
}

// engine looks at Docker's lists from time to time, and when Docker says that something
// happened. It is never asked inside a verb: dockerd holds the container's lock there, and
// while it boots it answers nobody.
type engine struct {
	socket string
	// seen is called with the IDs and names of all networks, whatever name their driver is
	// installed by, and the endpoints of all running containers, only ever from complete lists.
	seen func(ctx context.Context, networks map[string]string, attached []Attached)
	log  logrus.FieldLogger

	mu      sync.Mutex
	err     error
	version string
}

// run looks until ctx ends. Docker may come and go, and be another version then: a client
// agrees on the API's version once, so that each attempt after a failure has one of its own.
func (e *engine) run(ctx context.Context) error {
	happened := make(chan struct{}, 1)
	go e.listen(ctx, happened)
	for ctx.Err() == nil {
		api, err := e.client()
		if err != nil {
			return err
		}
		e.follow(ctx, api, happened)
		api.Close()
		select {
		case <-ctx.Done():
		case <-time.After(engineRetry):
		case <-happened:
			time.Sleep(engineSettle)
		}
	}
	return nil
}

func (e *engine) client() (*client.Client, error) {
	api, err := client.NewClientWithOpts(client.WithHost("unix://"+e.socket), client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, fmt.Errorf("docker client: %w", err)
	}
	return api, nil
}

// follow looks until a look fails, or ctx ends.
func (e *engine) follow(ctx context.Context, api *client.Client, happened <-chan struct{}) {
	for {
		err := e.look(ctx, api)
		if e.note(err); err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(enginePoll):
		case <-happened:
			time.Sleep(engineSettle)
		}
	}
}

func (e *engine) look(ctx context.Context, api *client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	nets, err := api.NetworkList(ctx, network.ListOptions{})
	if err != nil {
		return fmt.Errorf("docker's list of networks: %w", err)
	}
	running, err := api.ContainerList(ctx, container.ListOptions{})
	if err != nil {
		return fmt.Errorf("docker's list of containers: %w", err)
	}
	if version, _ := e.status(); version == "" {
		is, err := api.ServerVersion(ctx)
		if err != nil {
			return fmt.Errorf("docker's version: %w", err)
		}
		e.mu.Lock()
		e.version = is.Version
		e.mu.Unlock()
	}
	networks := map[string]string{}
	for _, n := range nets {
		networks[n.ID] = n.Name
	}
	var attached []Attached
	for _, c := range running {
		if c.NetworkSettings == nil {
			continue
		}
		for _, n := range c.NetworkSettings.Networks {
			if n != nil && n.EndpointID != "" {
				attached = append(attached, Attached{n.EndpointID, n.NetworkID, c.ID, name(c.Names)})
			}
		}
	}
	e.seen(ctx, networks, attached)
	return nil
}

func name(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return strings.TrimPrefix(names[0], "/")
}

// listen turns Docker's events into "look again". What it misses, the next poll sees.
func (e *engine) listen(ctx context.Context, happened chan<- struct{}) {
	about := filters.NewArgs(
		filters.Arg("type", string(events.NetworkEventType)),
		filters.Arg("type", string(events.ContainerEventType)),
		filters.Arg("event", "create"), filters.Arg("event", "connect"), filters.Arg("event", "disconnect"), filters.Arg("event", "start"),
		filters.Arg("event", "destroy"), filters.Arg("event", "rename"))
	for ctx.Err() == nil {
		if api, err := e.client(); err == nil { // else run says so
			stream, errs := api.Events(ctx, events.ListOptions{Filters: about})
			for open := true; open; {
				select {
				case <-stream:
					select {
					case happened <- struct{}{}:
					default:
					}
				case <-errs:
					open = false
				}
			}
			api.Close()
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (e *engine) note(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil && (e.err == nil || e.err.Error() != err.Error()) {
		e.log.WithError(err).Warn("docker does not answer; nothing is collected meanwhile")
	}
	if e.err = err; err != nil {
		e.version = "" // another may come back
	}
}

// status is Docker's version, and why Docker does not answer, if it does not.
func (e *engine) status() (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.version, e.err
}
