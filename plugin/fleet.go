package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"time"

	"nuage/controller/store"
	"nuage/controller/tenant"
	"nuage/ovs/agent"
)

const (
	heartbeatEvery = 5 * time.Second
	countersEvery  = 10 * time.Second
	// vxlanOverhead is what VXLAN over IPv4 takes of the underlay's MTU: outer IP, UDP and
	// VXLAN headers and the inner Ethernet header.
	vxlanOverhead = 50
)

// join fills in where the store is, if it is another host's: with the certificate of an
// earlier join, or by the token, for as long as it takes. Where settings do not say which
// store it is, there is none until they do.
func (n *node) join(ctx context.Context, conf *store.Config, gate *gate) error {
	if n.settings.Misplaced != nil {
		gate.closedBecause(n.settings.Err())
		<-ctx.Done()
		return ctx.Err()
	}
	if len(conf.Endpoints) > 0 || conf.Listen != "" {
		return nil
	}
	dir := filepath.Join(n.places.State, "joined")
	for {
		var credentials store.Credentials
		var err error
		if n.settings.Join != "" {
			credentials, err = store.Join(ctx, store.JoinConfig{Token: n.settings.Join, Host: n.host, Dir: dir, Log: n.log})
		} else {
			credentials, _, err = store.LoadCredentials(dir)
		}
		if err == nil {
			if len(credentials.Endpoints) > 0 {
				n.joined, conf.Endpoints, conf.TLS = credentials, credentials.Endpoints, credentials.TLS
			}
			return nil
		}
		gate.closedBecause(err)
		n.log.WithError(err).Error("this host has not joined; trying again")
		select {
		case <-ctx.Done():
			return err
		case <-time.After(3 * time.Second):
		}
	}
}

// storeError is why the store is not ready, nil if it is; where another token might have
// helped, with why it does not.
func storeError(ready, token error) error {
	if ready == nil || token == nil {
		return ready
	}
	return fmt.Errorf("%w; the token in NUAGE_JOIN is of no use: %w", ready, token)
}

func (n *node) keepCertificate(ctx context.Context) error {
	if len(n.joined.Endpoints) > 0 {
		n.joined.Keep(ctx, n.log)
	}
	return nil
}

// alone is whether no other host can share this one's tenants.
func (n *node) alone() bool {
	return n.settings.Listen == "" && len(n.settings.Store) == 0 && len(n.joined.Endpoints) == 0
}

// vtep is this host's tunnel endpoint: none while it is alone, so that nothing receives
// tunnel packets there.
func (n *node) vtep() netip.Addr {
	if n.alone() {
		return netip.Addr{}
	}
	return n.settings.VTEP
}

// self is this host as the others see it: at the VTEP that it had, while it is not known anew.
func (n *node) self() tenant.Host {
	self := tenant.Host{Meta: tenant.Meta{ID: n.host}, Name: n.host, VTEP: n.vtep(), Version: version, MTU: underlayMTU(n.vtep())}
	n.store.Feed().View(func(st *tenant.State) {
		if had := st.Hosts[n.host]; had != nil && !n.alone() && !n.vtep().IsValid() {
			self.VTEP, self.MTU = had.VTEP, had.MTU
		}
	})
	return self
}

// underlayMTU is the MTU of the link that has the address; 0 if there is none, or none of use.
func underlayMTU(vtep netip.Addr) int {
	links, err := net.Interfaces()
	if err != nil || !vtep.IsValid() {
		return 0
	}
	for _, l := range links {
		addrs, err := l.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, ok := a.(*net.IPNet); ok && p.IP.Equal(vtep.AsSlice()) {
				if l.MTU < tenant.LeastUnderlayMTU {
					return 0
				}
				return l.MTU
			}
		}
	}
	return 0
}

// maxMTU is what the narrowest underlay of all hosts leaves a container; 0 if no host
// knows its own.
func (n *node) maxMTU() (mtu int) {
	own := underlayMTU(n.vtep())
	n.store.Feed().View(func(st *tenant.State) { mtu = max(0, narrowest(st, own)-vxlanOverhead) })
	return mtu
}

// narrowest is the least MTU of this host's underlay and those of hosts with a valid record.
func narrowest(st *tenant.State, own int) int {
	for _, h := range st.Hosts {
		if h.MTU != 0 && h.Validate() == nil && (own == 0 || h.MTU < own) {
			own = h.MTU
		}
	}
	return own
}

// dhcp is what vports are told that ask: their MTU is what the driver would give them now.
func (n *node) dhcp() agent.DHCP {
	return agent.DHCP{
		DNS: n.settings.DNS,
		MTU: func(v tenant.Vport) int {
			option := 0
			n.store.Feed().View(func(st *tenant.State) {
				if network := st.Networks[tenant.NetworkID(v.Host, v.Owner.NetworkID)]; network != nil {
					option = network.MTU
				}
			})
			return n.driver.MTUOf(option)
		},
		Told: func(vportID string, declined bool) { n.machines.Told(vportID, declined) },
	}
}

// keepAlive registers this host and tells that it is alive, however long it takes to settle
// things, and whether or not there is a switch.
func (n *node) keepAlive(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for last := (time.Time{}); ; {
		if n.store.Ready() == nil && time.Since(last) > heartbeatEvery {
			last = time.Now()
			if n.missing() != nil {
				if err := n.register(ctx); err != nil {
					n.log.WithError(err).Error("this host is not registered; trying again")
				}
			}
			n.heartbeat(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (n *node) heartbeat(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, heartbeatEvery)
	defer cancel()
	status := n.agent.Status()
	err := n.store.Heartbeat(ctx, tenant.HostStatus{Host: n.host, Version: version, Programmed: status.Revision, Error: text(status.Err)})
	if err != nil && ctx.Err() == nil {
		n.log.WithError(err).Warn("no heartbeat")
	}
}

// keepCounters tells the store what this host's switch has counted, when that has changed.
func (n *node) keepCounters(ctx context.Context) error {
	tick := time.NewTicker(countersEvery)
	defer tick.Stop()
	var told []tenant.Counters
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if n.store.Ready() != nil {
			continue
		}
		now, err := n.agent.Counters(ctx)
		if err != nil || reflect.DeepEqual(now, told) {
			continue // the agent's status says what is wrong with the switch
		}
		bounded, cancel := context.WithTimeout(ctx, countersEvery)
		err = n.store.PutCounters(bounded, now)
		cancel()
		switch {
		case err == nil:
			told = now
		case ctx.Err() == nil:
			n.log.WithError(err).Warn("counters are not told; trying again")
		}
	}
}
