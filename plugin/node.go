package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"nuage/controller/store"
	"nuage/controller/vsd"
	"nuage/driver"
	"nuage/driver/journal"
	"nuage/driver/link"
	"nuage/ipam"
	"nuage/ovs"
	"nuage/ovs/agent"
	"nuage/plugin/monitor"
	"nuage/plugin/vm"
)

const (
	// collectAfter is how long Docker must have lists without an object before it is
	// collected: an object is ours before it is in Docker's lists.
	collectAfter   = 2 * time.Minute
	reconcileEvery = time.Minute
	// stopWithin leaves the rest of the 10 s that dockerd gives a plugin to end.
	stopWithin = 4 * time.Second
	// again is when what another process holds is tried again.
	again = time.Second
)

// node is all of nuage on one host, wired:
//
//	dockerd ──► wire ──► driver, ipam ──► store ──► feed ──► agent ──► bridge
//	dockerd ◄── monitor ──► driver        │                (flows; ports by the driver)
//	nuagectl ─► vsd ─────────────────────┘
type node struct {
	settings Settings
	places   Places
	host     string
	started  time.Time
	log      logrus.FieldLogger

	journal *journal.Journal
	links   *link.Links
	joined  store.Credentials // of the host that this one has joined, if any
	store   *store.Store
	registration
	bridge   *ovs.Bridge
	agent    *agent.Agent
	ipam     *ipam.Driver
	driver   *driver.Driver
	machines *vm.Watcher
	engine   *engine
	monitor  *monitor.Monitor
}

// run listens, then starts everything and keeps it going until ctx ends. Nothing but a
// socket that cannot be had ends it otherwise: what is away is tried again.
func run(ctx context.Context, settings Settings, places Places, log *logrus.Logger) error {
	gate := newGate()
	w := newWire(log)
	register(w, gate, settings)
	l, err := listen(places.Sockets[0])
	if err != nil {
		return err
	}
	servers := []*http.Server{serve(l, w, log)}
	front := newFront(gate, settings, log)
	if l := listenAlone(ctx, places.api(), gate, log); l != nil {
		servers = append(servers, serve(l, front, log))
	}
	for _, path := range places.Sockets[1:] {
		l, err := listen(path)
		if err != nil {
			log.WithError(err).Error("the bare driver name nuage does not work; the plugin's own does")
			continue
		}
		servers = append(servers, serve(l, w, log))
	}
	n, err := newNode(ctx, settings, places, log, gate)
	if err != nil {
		for _, s := range servers {
			s.Close()
		}
		log.WithError(err).Info("nuage stops before it has started")
		return nil // it was told to stop: nothing else ends newNode
	}
	front.pass(n.api())
	gate.open(n)
	log.WithFields(logrus.Fields{"version": version, "host": n.host, "bridge": settings.Bridge}).Info("nuage is up")

	// What verbs need outlives the verbs.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	var parts errgroup.Group
	for _, part := range []func(context.Context) error{n.store.Run, n.bridge.Run, n.agent.Run, n.machines.Run, n.engine.run, n.keep, n.keepAlive, n.keepCounters, n.keepCertificate} {
		parts.Go(func() error { return part(work) })
	}
	// The monitor ends with ctx: what it is attaching then needs the others to be undone.
	watching := make(chan error, 1)
	go func() { watching <- n.monitor.Run(ctx) }()
	<-ctx.Done()
	log.Info("nuage stops; containers go on")
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	for _, s := range servers {
		s.Shutdown(end)
	}
	watched := <-watching
	n.driver.Wait()
	stop()
	err = errors.Join(watched, parts.Wait())
	n.links.Close()
	return errors.Join(err, n.journal.Close())
}

// newNode opens the state directory, waiting for one that is not usable yet (an older
// process that still ends holds its lock), and wires the parts.
func newNode(ctx context.Context, settings Settings, places Places, log *logrus.Logger, gate *gate) (*node, error) {
	n := &node{settings: settings, places: places, log: log, started: time.Now()}
	if err := ctx.Err(); err != nil { // while another nuage had this host
		return nil, err
	}
	for {
		err := n.openState()
		if err == nil {
			break
		}
		gate.closedBecause(err)
		log.WithError(err).Error("the state directory cannot be used; trying again")
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("stopped before the state directory could be used: %w", err)
		case <-time.After(again):
		}
	}
	conf := store.Config{Dir: filepath.Join(places.State, "etcd"), Endpoints: settings.Store, Compact: len(settings.Store) > 0, TLS: settings.StoreTLS, Host: n.host,
		Listen: settings.Listen, Autocreate: settings.Autocreate, CADir: filepath.Join(places.State, "ca"), Log: log.WithField("part", "store")}
	if err := n.join(ctx, &conf, gate); err != nil {
		n.links.Close()
		return nil, errors.Join(err, n.journal.Close())
	}
	conf.Answer = func(ctx context.Context, asker string, question []byte) []byte {
		return n.tracer().answer(ctx, asker, question)
	}
	n.store = store.New(conf)
	n.bridge = ovs.New(ovs.Config{DB: places.ovsdb(), Bridge: settings.Bridge, Datapath: settings.Datapath, VTEP: n.vtep(), Log: log.WithField("part", "switch")})
	n.agent = agent.New(agent.Config{Host: n.host, Feed: n.store.Feed(), Switch: n.bridge, DHCP: n.dhcp(),
		ConntrackLimit: settings.ConntrackLimit, Log: log.WithField("part", "agent")})
	n.ipam = ipam.New(ipam.Config{Store: ownStore{n.store, n.denied}, Records: n.journal, Host: n.host, Enterprise: settings.Enterprise,
		Autocreate: settings.Autocreate, Global: settings.Scope == "global", Log: log.WithField("part", "ipam")})
	n.driver = driver.New(driver.Config{Host: n.host, Store: ownStore{n.store, n.denied}, IPAM: n.ipam, Ports: ports{n.bridge}, Flows: n.agent,
		Links: n.links, Journal: n.journal, Enterprise: settings.Enterprise, Autocreate: settings.Autocreate,
		MTU: settings.MTU, MaxMTU: n.maxMTU, Scope: settings.Scope, Problem: n.problem, Log: log.WithField("part", "driver")})
	n.machines = vm.New(vm.Config{Host: n.host, Store: ownStore{n.store, n.missing}, Switch: n.bridge, Addresses: n.ipam, Flows: n.agent, Enterprise: settings.Enterprise,
		Autocreate: settings.Autocreate, Refuse: n.problem, Log: log.WithField("part", "machines")})
	n.monitor = monitor.New(monitor.Config{Socket: places.docker(), Driver: n.driver, Netns: places.netns, Log: log.WithField("part", "monitor")})
	n.engine = &engine{socket: places.docker(), seen: n.seen, log: log.WithField("part", "docker")}
	return n, nil
}

func (n *node) openState() error {
	if err := os.MkdirAll(n.places.State, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	host, err := hostName(filepath.Join(n.places.State, "host"))
	if err != nil {
		return err
	}
	j, err := journal.Open(filepath.Join(n.places.State, "journal"))
	if err != nil {
		return err
	}
	if moved := j.Moved(); moved != "" {
		n.log.WithField("moved", moved).Error("the journal was damaged and was put aside; what the store knows of this host is adopted")
	}
	links, err := link.Open()
	if err != nil {
		return errors.Join(err, j.Close())
	}
	n.host, n.journal, n.links = host, j, links
	return nil
}

// hostName is what the host was called when nuage first ran on it: vports are the host's
// by this name, so that it must not change under them.
func hostName(file string) (string, error) {
	text, err := os.ReadFile(file)
	if name := strings.TrimSpace(string(text)); err == nil && name != "" {
		return name, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("host name: %w", err)
	}
	if err := os.WriteFile(file, []byte(name+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("host name: %w", err)
	}
	return name, nil
}

// keep lets the driver settle what is unsettled once the host is registered: at the start, when
// the store or the switch come back or the state was restored, and from time to time.
func (n *node) keep(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last time.Time
	var ready bool
	var restored int64
	for {
		was, before := ready, restored
		ready = n.store.Ready() == nil && n.missing() == nil && ports{n.bridge}.Ready() == nil
		if ready {
			restored = n.store.Restored()
		}
		if ready && (!was || restored != before || time.Since(last) > reconcileEvery) {
			last = time.Now()
			n.settle(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (n *node) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, reconcileEvery)
	defer cancel()
	if err := n.register(ctx); err != nil {
		n.log.WithError(err).Error("this host is not registered, and nothing is settled")
		return
	}
	// The driver logs what it did.
	if _, err := n.driver.Reconcile(ctx); err != nil {
		n.log.WithError(err).Warn("not all is settled; trying again")
	}
}

// seen passes Docker's lists on to the driver.
func (n *node) seen(ctx context.Context, names map[string]string, attached []Attached) {
	networks, endpoints := map[string]bool{}, map[string]bool{}
	for id := range names {
		networks[id] = true
	}
	for _, a := range attached {
		endpoints[a.EndpointID] = true
	}
	if n.store.Ready() != nil || n.missing() != nil {
		return
	}
	if _, err := n.driver.Collect(ctx, networks, endpoints, collectAfter); err != nil {
		n.log.WithError(err).Warn("not all that Docker dropped is collected; trying again")
	}
	for id, name := range names {
		if err := n.driver.NameNetwork(ctx, id, name); err != nil {
			n.log.WithError(err).WithField("network", name).Warn("the network does not have its name")
		}
	}
	for _, a := range attached {
		if err := n.driver.Enrich(ctx, a.EndpointID, a.ContainerID, a.ContainerName); err != nil {
			n.log.WithError(err).WithField("container", a.ContainerName).Warn("the vport does not have its container's name")
		}
	}
}

func (n *node) api() http.Handler {
	return vsd.New(vsd.Config{Store: n.store, Status: n.status, Version: version, Log: n.log.WithField("part", "api"),
		Tracer: n.tracer()})
}
