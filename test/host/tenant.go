package host

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Domain is a domain of a test's own, in an enterprise of its own, with one zone "Zone".
type Domain struct {
	h                *Host
	Enterprise, Name string
}

// Domain makes a domain with subnets given as NAME=CIDR, by `nuagectl apply`. Several
// domains of one test need several names.
func (h *Host) Domain(name string, subnets ...string) *Domain {
	h.t.Helper()
	d := &Domain{h: h, Enterprise: h.Name("corp"), Name: name}
	d.Apply(subnets...)
	return d
}

// Apply adds subnets, given as NAME=CIDR, and returns what nuagectl said.
func (d *Domain) Apply(subnets ...string) string {
	d.h.t.Helper()
	var list []string
	for _, s := range subnets {
		name, cidr, _ := strings.Cut(s, "=")
		list = append(list, fmt.Sprintf("{name: %s, address: %s}", name, cidr))
	}
	file := fmt.Sprintf("enterprise: %s\ndomains:\n- name: %s\n  zones:\n  - name: Zone\n    subnets: [%s]\n",
		d.Enterprise, d.Name, strings.Join(list, ", "))
	out, err := d.h.TryWith(file, nil, "nuagectl", "apply", "-f", "-")
	if err != nil {
		d.h.t.Fatalf("nuagectl apply: %v\n%s\n%s", err, out, file)
	}
	return out
}

// On is the same domain, for the networks of another host of the fleet.
func (d *Domain) On(h *Host) *Domain { return &Domain{h, d.Enterprise, d.Name} }

// Driver is the domain, and a subnet unless that is empty, as -o flags.
func (d *Domain) Driver(subnet string) []string { return d.flags("-o", subnet) }

// IPAM is the nuage IPAM with the domain and a subnet as --ipam-opt flags.
func (d *Domain) IPAM(subnet string) []string {
	return append([]string{"--ipam-driver", "nuage"}, d.flags("--ipam-opt", subnet)...)
}

func (d *Domain) flags(flag, subnet string) []string {
	f := []string{flag, "enterprise=" + d.Enterprise, flag, "domain=" + d.Name, flag, "zone=Zone"}
	if subnet != "" {
		f = append(f, flag, "subnet="+subnet)
	}
	return f
}

// Network makes a Docker network on a subnet with the nuage IPAM.
func (d *Domain) Network(subnet string, flags ...string) string {
	d.h.t.Helper()
	return d.h.Network(d.Name+"-"+subnet, append(d.IPAM(subnet), flags...)...)
}

// Get is `nuagectl get KIND FLAGS… -o json`, decoded.
func (h *Host) Get(kind string, flags ...string) []map[string]any {
	h.t.Helper()
	out := h.Nuagectl(append([]string{"get", kind, "-o", "json"}, flags...)...)
	var objects []map[string]any
	if err := json.Unmarshal([]byte(out), &objects); err != nil {
		h.t.Fatalf("nuagectl get %s -o json: %v\n%s", kind, err, out)
	}
	return objects
}
