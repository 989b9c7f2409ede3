package flow

import (
	"encoding/hex"
	"net/netip"
	"strconv"
)

func appendActions(b []byte, as []Action) []byte {
	if len(as) == 0 {
		return append(b, "drop"...)
	}
	for i, a := range as {
		if i > 0 {
			b = append(b, ',')
		}
		b = a.appendText(b)
	}
	return b
}

func (a Output) appendText(b []byte) []byte {
	if a.Port < PortInPort {
		b = append(b, "output:"...)
	}
	return appendPort(b, a.Port)
}

func (a OutputReg) appendText(b []byte) []byte { return a.Src.appendText(append(b, "output:"...)) }

func (a SetField) appendText(b []byte) []byte {
	b = appendValue(append(b, "set_field:"...), a.FieldMatch)
	return append(append(b, "->"...), fields[a.Field].name...)
}

func (a Load) appendText(b []byte) []byte {
	b = appendHash(append(b, "load:"...), a.Value)
	return a.Dst.appendText(append(b, "->"...))
}

func (a Move) appendText(b []byte) []byte {
	b = a.Src.appendText(append(b, "move:"...))
	return a.Dst.appendText(append(b, "->"...))
}

func (a CheckLarger) appendText(b []byte) []byte {
	b = strconv.AppendUint(append(b, "check_pkt_larger("...), uint64(a.Bytes), 10)
	return a.Dst.appendText(append(b, ")->"...))
}

func (DecTTL) appendText(b []byte) []byte { return append(b, "dec_ttl"...) }

func (CTClear) appendText(b []byte) []byte { return append(b, "ct_clear"...) }

func (a Goto) appendText(b []byte) []byte {
	return strconv.AppendUint(append(b, "goto_table:"...), uint64(a.Table), 10)
}

func (a Resubmit) appendText(b []byte) []byte {
	b = strconv.AppendUint(append(b, "resubmit(,"...), uint64(a.Table), 10)
	return append(b, ')')
}

func (a MeterAction) appendText(b []byte) []byte {
	return strconv.AppendUint(append(b, "meter:"...), uint64(a.ID), 10)
}

func (a Foreign) appendText(b []byte) []byte { return append(b, a.Text...) }

func (a Controller) appendText(b []byte) []byte {
	if a.ID == 0 && a.Meter == 0 && a.UserData == "" {
		return strconv.AppendUint(append(b, "CONTROLLER:"...), uint64(a.MaxLen), 10)
	}
	b = append(b, "controller("...)
	if a.MaxLen != 65535 {
		b = strconv.AppendUint(append(b, "max_len="...), uint64(a.MaxLen), 10)
		b = append(b, ',')
	}
	if a.ID != 0 {
		b = strconv.AppendUint(append(b, "id="...), uint64(a.ID), 10)
		b = append(b, ',')
	}
	if a.UserData != "" {
		b = append(b, "userdata="...)
		for i := range len(a.UserData) {
			b = append(hex.AppendEncode(b, []byte{a.UserData[i]}), '.')
		}
		b[len(b)-1] = ','
	}
	if a.Meter != 0 {
		b = strconv.AppendUint(append(b, "meter_id="...), uint64(a.Meter), 10)
		b = append(b, ',')
	}
	b[len(b)-1] = ')'
	return b
}

func (a CT) appendText(b []byte) []byte {
	b = append(b, "ct("...)
	start := len(b)
	if a.Commit {
		b = append(b, "commit,"...)
	}
	if a.Force {
		b = append(b, "force,"...)
	}
	if a.Table != NoTable {
		b = strconv.AppendUint(append(b, "table="...), uint64(a.Table), 10)
		b = append(b, ',')
	}
	if a.ZoneSrc.Width != 0 {
		b = append(a.ZoneSrc.appendText(append(b, "zone="...)), ',')
	} else if a.Zone != 0 {
		b = strconv.AppendUint(append(b, "zone="...), uint64(a.Zone), 10)
		b = append(b, ',')
	}
	if a.NAT != nil {
		b = append(a.NAT.appendText(b), ',')
	}
	if len(a.Exec) > 0 {
		b = append(appendActions(append(b, "exec("...), a.Exec), "),"...)
	}
	if len(b) > start {
		b = b[:len(b)-1]
	}
	return append(b, ')')
}

func (n NAT) appendText(b []byte) []byte {
	b = append(b, "nat"...)
	switch {
	case n.Src:
		b = append(b, "(src"...)
	case n.Dst:
		b = append(b, "(dst"...)
	default:
		return b
	}
	if n.Min.IsValid() {
		b = n.appendRange(append(b, '='))
	}
	for _, f := range natFlagNames {
		if n.Flags&f.flag != 0 {
			b = append(append(b, ','), f.name...)
		}
	}
	return append(b, ')')
}

var natFlagNames = [...]struct {
	flag uint16
	name string
}{{NATPersistent, "persistent"}, {NATHash, "hash"}, {NATRandom, "random"}}

func (n NAT) appendRange(b []byte) []byte {
	address := func(b []byte, a netip.Addr) []byte {
		x := a.AsSlice()
		if a.Is4() || n.PortMin == 0 {
			return appendIP(b, x)
		}
		return append(appendIP(append(b, '['), x), ']')
	}
	b = address(b, n.Min)
	if n.Max.IsValid() && n.Max != n.Min {
		b = address(append(b, '-'), n.Max)
	}
	if n.PortMin != 0 {
		b = strconv.AppendUint(append(b, ':'), uint64(n.PortMin), 10)
		if n.PortMax != 0 && n.PortMax != n.PortMin {
			b = strconv.AppendUint(append(b, '-'), uint64(n.PortMax), 10)
		}
	}
	return b
}

// String is the subfield as ovs-ofctl prints it.
func (s Subfield) String() string { return string(s.appendText(nil)) }

func (s Subfield) appendText(b []byte) []byte {
	b = append(append(b, fields[s.Field].sub...), '[')
	if s.Offset != 0 || s.Width != s.Field.Bits() {
		b = strconv.AppendUint(b, uint64(s.Offset), 10)
		if s.Width != 1 {
			b = strconv.AppendUint(append(b, ".."...), uint64(s.Offset+s.Width-1), 10)
		}
	}
	return append(b, ']')
}
