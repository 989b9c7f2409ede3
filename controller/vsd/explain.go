package vsd

import (
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"nuage/controller/tenant"
)

// Explained is the answer of /nuage/v1/explain. Differs is set if a switch would do
// something else than the model says.
type Explained struct {
	tenant.Explanation
	Switches []SwitchSays `json:"switches"`
	Differs  bool         `json:"differs"`
}

func (a *api) serveExplain(w http.ResponseWriter, r *http.Request) {
	x, err := a.explain(r)
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, x)
}

func (a *api) explain(r *http.Request) (*Explained, error) {
	q, err := parameters(r, "from", "to", "protocol", "port", "sourcePort", "icmpType", "icmpCode", "domain", "enterprise")
	if err != nil {
		return nil, err
	}
	s, err := a.read(r.Context())
	if err != nil {
		return nil, err
	}
	question, to, err := ask(s, q)
	if err != nil {
		return nil, err
	}
	x := &Explained{Explanation: s.Explain(question)}
	x.Switches = a.compare(r.Context(), s, x.Explanation, question.From, to)
	for _, says := range x.Switches {
		x.Differs = x.Differs || says.Asked && !says.Agrees
	}
	return x, nil
}

// ask reads the question, and finds the vport that it is about at the far end; nil if none.
func ask(s *tenant.State, p map[string]string) (q tenant.Question, to *tenant.Vport, err error) {
	if p["from"] == "" || p["to"] == "" || p["protocol"] == "" {
		return q, nil, tenant.Errorf(tenant.ErrInvalid, "query: from, to and protocol are needed")
	}
	if q.Protocol, err = tenant.ParseProtocol(p["protocol"]); err != nil {
		return q, nil, err
	}
	if q.Protocol == tenant.AnyProtocol {
		return q, nil, tenant.Errorf(tenant.ErrInvalid, "one packet is of one protocol: tcp, udp, sctp, icmp or a number, not any")
	}
	q.ICMPType = 8
	for name, set := range map[string]func(uint64){
		"port": func(n uint64) { q.DstPort = uint16(n) }, "sourcePort": func(n uint64) { q.SrcPort = uint16(n) },
		"icmpType": func(n uint64) { q.ICMPType = uint8(n) }, "icmpCode": func(n uint64) { q.ICMPCode = uint8(n) },
	} {
		size := 16
		if strings.HasPrefix(name, "icmp") {
			size = 8
		}
		n, bad := strconv.ParseUint(cmp.Or(p[name], "0"), 10, size)
		switch {
		case bad != nil:
			return q, nil, tenant.Errorf(tenant.ErrInvalid, "%s: %q is not a number from 0 to %d", name, p[name], 1<<size-1)
		case p[name] != "" && size == 16 && !q.Protocol.HasPorts(), p[name] != "" && size == 8 && q.Protocol != tenant.ICMP:
			return q, nil, tenant.Errorf(tenant.ErrInvalid, "%s: protocol %s has none", name, q.Protocol)
		case p[name] != "":
			set(n)
		}
	}
	if q.Protocol.HasPorts() && q.DstPort == 0 {
		return q, nil, tenant.Errorf(tenant.ErrInvalid, "%s needs a port, such as %s/80", q.Protocol, q.Protocol)
	}
	if q.From, q.Src, err = endOf(s, p["from"], p["enterprise"], p["domain"], ""); err != nil {
		return q, nil, err
	}
	if q.From == nil {
		return q, nil, tenant.Errorf(tenant.ErrNotFound, "no vport has %s: nothing is sent from it", p["from"])
	}
	if to, q.Dst, err = endOf(s, p["to"], "", "", q.From.DomainID); err != nil {
		return q, nil, err
	}
	if q.To = to; !q.Dst.IsValid() {
		q.Dst = to.IPv4
	}
	return q, to, nil
}

// endOf finds a vport by its name, its container's, its ID, or an address that it has. For
// an address that nobody has it is nil. The domain is named, or given by its ID; an address
// alone says nothing if several domains use it.
func endOf(s *tenant.State, word, enterprise, domain, domainID string) (*tenant.Vport, netip.Addr, error) {
	address, notAddress := netip.ParseAddr(word)
	var found []*tenant.Vport
	elsewhere := ""
	for _, v := range s.Vports {
		virtual := slices.ContainsFunc(v.VirtualIPs, func(vip tenant.VirtualIP) bool { return vip.IPv4 == address })
		if v.Name != word && v.ID != word && v.Owner.ContainerName != word && (notAddress != nil || v.IPv4 != address && !virtual) {
			continue
		}
		p := placeOf(s, v.DomainID, "", "")
		switch {
		case domainID == "" || v.DomainID == domainID:
		case v.DomainID == "":
			elsewhere = fmt.Sprintf("; the vport %s could not be attached: %s", v.Name, v.Error)
			continue
		default:
			elsewhere = fmt.Sprintf("; the vport %s is in domain %s, and no domain reaches another", v.Name, p.Domain)
			continue
		}
		if (enterprise == "" || p.Enterprise == enterprise) && (domain == "" || p.Domain == domain) {
			found = append(found, v)
		} else {
			elsewhere = fmt.Sprintf(" there; the vport %s is in domain %s of enterprise %s", v.Name, p.Domain, p.Enterprise)
		}
	}
	if notAddress == nil && len(found) > 1 {
		if holder := s.Holder(domainID, address); holder != nil { // the others have it as a virtual IP, too
			found = []*tenant.Vport{holder}
		}
	}
	switch {
	case len(found) == 1 && notAddress == nil:
		return found[0], address, nil
	case len(found) == 1:
		return found[0], netip.Addr{}, nil
	case len(found) == 0 && notAddress == nil && address.Is4():
		return nil, address, nil
	case len(found) == 0:
		return nil, address, tenant.Errorf(tenant.ErrNotFound, "%q is neither a vport, a container nor an IPv4 address%s", word, elsewhere)
	}
	var where []string
	for _, v := range found {
		p := placeOf(s, v.DomainID, v.ZoneID, v.SubnetID)
		where = append(where, fmt.Sprintf("%s/%s/%s/%s/%s on host %s (%s)", p.Enterprise, p.Domain, p.Zone, p.Subnet, v.Name, v.Host, v.ID))
	}
	slices.Sort(where)
	return nil, address, tenant.Errorf(tenant.ErrInvalid, "%d vports are %s; say which by --domain, --enterprise or by its ID: %s", len(found), word, strings.Join(where, ", "))
}
