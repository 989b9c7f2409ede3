package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/digitalocean/go-openvswitch/ovs"
)

const (
	tunnelPort  = "nuage-vxlan"
	switchAgain = "systemctl restart openvswitch-switch; see /var/log/openvswitch"
	// shownPorts is how many ports that do not work are named.
	shownPorts = 5
)

// runBounded runs Open vSwitch's programs. What they write is an error's text.
func runBounded(ctx context.Context) func(string, ...string) ([]byte, error) {
	return func(program string, args ...string) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, 2*lookTime)
		defer cancel()
		out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
		if err != nil && len(out) > 0 {
			err = fmt.Errorf("%s", strings.TrimSpace(string(out)))
		}
		return out, err
	}
}

// checkSwitch asks Open vSwitch by its own programs, which know nothing of the plugin.
func (d *doctor) checkSwitch() {
	client := ovs.New(ovs.Timeout(int(lookTime.Seconds())), ovs.Exec(d.run))
	for _, program := range []string{"ovs-vsctl", "ovs-ofctl"} {
		if _, err := exec.LookPath(program); err != nil {
			d.problem("switch", "apt-get install openvswitch-switch", "there is no %s on this host: is Open vSwitch installed?", program)
			return
		}
	}
	bridges, err := client.VSwitch.ListBridges()
	if err != nil {
		d.problem("switch", switchAgain, "ovsdb-server does not answer: %s", words(err))
		return
	}
	name := d.bridge()
	if !slices.Contains(bridges, name) {
		d.problem("bridge", "the plugin makes it: see what it says", "there is no bridge %s", name)
		return
	}
	mode, err := client.VSwitch.GetFailMode(name)
	if err != nil || mode != ovs.FailModeSecure {
		d.problem("bridge", "ovs-vsctl set-fail-mode "+name+" secure, which the plugin does while it runs",
			"bridge %s floods what it has no flows for: its fail mode is %q, not secure", name, mode)
	}
	// Only ovs-vswitchd can answer this. Every packet passes table 0.
	counted, err := client.OpenFlow.DumpAggregate(name, &ovs.MatchFlow{Table: 0})
	if err != nil {
		d.problem("bridge", switchAgain, "ovs-vswitchd does not answer for bridge %s: %s", name, words(err))
		return
	}
	ports, err := client.VSwitch.ListPorts(name)
	if err != nil {
		d.problem("bridge", switchAgain, "ports of %s: %s", name, words(err))
		return
	}
	d.ok("bridge", "%s answers, with %s; its flows of now have seen %s", name, plural(len(ports), "port"), plural(int(counted.PacketCount), "packet"))
	d.checkDatapath(name)
	d.checkPorts(ports)
}

// bridge is the name of nuage's bridge.
func (d *doctor) bridge() string {
	if d.status != nil && d.status.Switch.Bridge != "" {
		return d.status.Switch.Bridge
	}
	return orElse(d.process.Env["NUAGE_BRIDGE"], "alubr0")
}

func (d *doctor) checkDatapath(bridge string) {
	out, err := d.run("ovs-vsctl", "--timeout=5", "get", "Bridge", bridge, "datapath_type")
	if err != nil {
		d.problem("datapath", switchAgain, "%v", err)
		return
	}
	kind := orElse(strings.Trim(strings.TrimSpace(string(out)), `"`), "system")
	there := func(path string) bool { _, err := os.Stat(path); return err == nil }
	switch {
	case kind == "netdev" && !there("/dev/net/tun"):
		d.problem("datapath", "modprobe tun && systemctl restart openvswitch-switch", "the userspace datapath needs the kernel's module tun: there is no /dev/net/tun")
	case kind == "system" && !there("/sys/module/openvswitch"):
		d.problem("datapath", "modprobe openvswitch && systemctl restart openvswitch-switch, or set NUAGE_DATAPATH=netdev", "the kernel's module openvswitch is not loaded")
	case kind == "system" && !there("/sys/module/nfnetlink_cttimeout"):
		d.note("datapath", "the kernel's, without the module nfnetlink_cttimeout: a closed connection counts longer against its domain's limit")
	default:
		d.ok("datapath", "%s", map[string]string{"system": "the kernel's", "netdev": "userspace"}[kind])
	}
}

// checkPorts looks for ports that ovs-vswitchd cannot use.
func (d *doctor) checkPorts(ports []string) {
	out, err := d.run("ovs-vsctl", "--timeout=5", "--format=json", "--columns=name,error", "find", "Interface", "error!=[]")
	var found struct{ Data [][]any }
	if err == nil {
		err = json.Unmarshal(out, &found)
	}
	if err != nil {
		d.problem("ports", switchAgain, "ports: %v", err)
		return
	}
	broken := 0
	for _, row := range found.Data {
		name := fmt.Sprint(row[0])
		if !slices.Contains(ports, name) {
			continue
		}
		remedy := "restart its container or machine; of one that is gone the plugin removes the port"
		if name == tunnelPort {
			remedy = "find who else has UDP port 4789, such as a Docker overlay network: ss -ulnp sport = 4789"
		}
		if broken++; broken <= shownPorts {
			d.problem("ports", remedy, "ovs-vswitchd cannot use port %s: %v", name, row[1])
		}
	}
	if broken > shownPorts {
		d.problem("ports", "", "and %s more", plural(broken-shownPorts, "port"))
	}
	if broken == 0 {
		d.ok("ports", "ovs-vswitchd uses all of them")
	}
}

// words is what the program said, without the library's own.
func words(err error) string {
	if e := (*ovs.Error)(nil); errors.As(err, &e) {
		err = e.Err
	}
	return err.Error()
}
