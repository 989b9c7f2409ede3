package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// vxlan is what VXLAN takes of the underlay's MTU.
	vxlan = 50
	// clocksApart is how far the clocks of two hosts may be apart, heartbeats of 5 s included.
	// Certificates are made to be valid 5 minutes ago.
	clocksApart = time.Minute
	// leastDisk is what etcd should have room for: its data and a snapshot of it.
	leastDisk = 256 << 20
)

// checkFleet looks at the way to other hosts, and at these.
func (d *doctor) checkFleet() {
	if d.status == nil || d.status.Switch.Tunnel.VTEP == "" {
		return // alone
	}
	var hosts []struct {
		Name, State string
		Seen        time.Time
		MTU         int
	}
	ctx, cancel := context.WithTimeout(d.ctx, lookTime)
	defer cancel()
	if err := d.api.get(ctx, "/nuage/v1/hosts", nil, &hosts); err != nil {
		d.note("fleet", "the other hosts cannot be looked at: %v", err)
		return
	}
	narrowest, whose := 0, ""
	for _, h := range hosts {
		if h.MTU > 0 && (narrowest == 0 || h.MTU < narrowest) {
			narrowest, whose = h.MTU, h.Name
		}
		apart := time.Since(h.Seen).Abs()
		switch {
		case h.Name == d.status.Host:
		case h.State != "alive":
			d.note("fleet", "host %s is %s: if it is gone for good, nuagectl delete host %s", h.Name, h.State, h.Name)
		case apart > clocksApart:
			d.problem("clock", "set both clocks, and keep them by NTP: apt-get install systemd-timesyncd",
				"the clocks of this host and of %s are %s apart", h.Name, apart.Round(time.Second))
		}
	}
	d.checkUnderlay(narrowest, whose)
	if !d.wrong("clock") && d.status.HostsAlive == len(hosts) {
		d.ok("fleet", "all of %s are alive", plural(len(hosts), "host"))
	}
}

// checkUnderlay looks for the link that has the VTEP, and compares MTUs.
func (d *doctor) checkUnderlay(narrowest int, whose string) {
	vtep, _ := netip.ParseAddr(d.status.Switch.Tunnel.VTEP)
	link, found := linkOf(vtep)
	switch {
	case !found:
		d.problem("underlay", "set NUAGE_VTEP to an address or a link of this host", "no link of this host has the VTEP %s", vtep)
	case link.Flags&net.FlagUp == 0:
		d.problem("underlay", "ip link set "+link.Name+" up", "link %s, which has the VTEP %s, is down", link.Name, vtep)
	case narrowest > 0 && link.MTU > narrowest:
		d.note("underlay", "%s has the VTEP %s; its MTU is %d, but that of host %s is %d, so containers get %d",
			link.Name, vtep, link.MTU, whose, narrowest, narrowest-vxlan)
	default:
		d.ok("underlay", "%s has the VTEP %s; its MTU %d leaves containers %d", link.Name, vtep, link.MTU, link.MTU-vxlan)
	}
}

func linkOf(a netip.Addr) (net.Interface, bool) {
	links, _ := net.Interfaces()
	for _, l := range links {
		addrs, _ := l.Addrs()
		if slices.ContainsFunc(addrs, func(n net.Addr) bool {
			p, err := netip.ParsePrefix(n.String())
			return err == nil && p.Addr().Unmap() == a
		}) {
			return l, true
		}
	}
	return net.Interface{}, false
}

// checkCertificates looks at those by which this host is let into the store.
func (d *doctor) checkCertificates() {
	if d.process.ID == 0 {
		return
	}
	joined := d.process.outside(filepath.Join(d.process.State, "joined/host.json"))
	if text, err := os.ReadFile(joined); err == nil {
		var kept struct{ Authority, Pair string }
		if err := json.Unmarshal(text, &kept); err != nil {
			d.problem("certificate", "join anew: nuagectl token create on the serving host, NUAGE_JOIN here", "%s: %v", joined, err)
			return
		}
		again := "the serving host renews it, if it can be reached; else join anew: nuagectl token create there, NUAGE_JOIN here"
		d.checkCertificate("this host's", []byte(kept.Pair), again)
		d.checkCertificate("the fleet's authority's", []byte(kept.Authority), "let all hosts join anew")
	}
	for _, name := range []string{"NUAGE_STORE_CA", "NUAGE_STORE_CERT"} {
		if file := d.process.Env[name]; file != "" {
			text, err := os.ReadFile(d.process.outside(file))
			if err != nil {
				d.problem("certificate", "put the file there, or set "+name, "%s=%s: %v", name, file, errors.Unwrap(err))
				continue
			}
			d.checkCertificate(name, text, "renew "+file+", as the plugin sees it; it is read for each connection")
		}
	}
}

// checkCertificate looks at the time in which a certificate counts: it should be renewed before
// the last tenth.
func (d *doctor) checkCertificate(whose string, text []byte, remedy string) {
	var cert *x509.Certificate
	for block, rest := pem.Decode(text); block != nil && cert == nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			cert, _ = x509.ParseCertificate(block.Bytes)
		}
	}
	now, day := time.Now(), "2006-01-02 15:04 MST"
	switch {
	case cert == nil:
		d.problem("certificate", remedy, "%s certificate cannot be read", whose)
	case now.After(cert.NotAfter):
		d.problem("certificate", remedy, "%s certificate ended at %s", whose, cert.NotAfter.Format(day))
	case now.Before(cert.NotBefore):
		d.problem("clock", "set this host's clock, or that of who gives certificates", "%s certificate begins to count at %s only: one of the clocks is wrong",
			whose, cert.NotBefore.Format(day))
	case cert.NotAfter.Sub(now) < cert.NotAfter.Sub(cert.NotBefore)/10:
		d.problem("certificate", remedy, "%s certificate ends at %s, and has not been renewed", whose, cert.NotAfter.Format(day))
	default:
		d.ok("certificate", "%s counts until %s", strings.TrimSuffix(whose, "'s"), cert.NotAfter.Format(day))
	}
}

// checkDisk looks for room for the state, without which etcd stops to write.
func (d *doctor) checkDisk() {
	if d.process.ID == 0 {
		return
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(d.process.outside(d.process.State), &fs); err != nil {
		d.note("disk", "the place of the state cannot be looked at: %v", err)
		return
	}
	free := fs.Bavail * uint64(fs.Bsize)
	if free < leastDisk {
		d.problem("disk", "make room on the disk that has Docker's data (the daemon's: /var/lib/nuage)", "only %d MB are free where the state is kept", free>>20)
		return
	}
	d.ok("disk", "%d MB are free where the state is kept", free>>20)
}
