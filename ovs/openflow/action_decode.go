package openflow

import (
	"encoding/hex"
	"fmt"
	"net/netip"

	"nuage/ovs/flow"
)

// decodeInstructions reads a flow's instructions as actions. What package flow has no
// action for becomes flow.Foreign; only what breaks the framing is an error.
func decodeInstructions(b []byte) (as []flow.Action, err error) {
	for len(b) > 0 {
		n, err := frame(b, 8)
		if err != nil {
			return nil, err
		}
		switch typ := be.Uint16(b); {
		case typ == insGoto && n == 8:
			as = append(as, flow.Goto{Table: flow.Table(b[4])})
		case typ == insMeter && n == 8:
			as = append(as, flow.MeterAction{ID: be.Uint32(b[4:])})
		case typ == insApply:
			if as, err = decodeActions(as, b[8:n], false); err != nil {
				return nil, err
			}
		default:
			as = append(as, foreign("instruction", b[:n]))
		}
		b = b[n:]
	}
	return as, nil
}

// frame is the length of the instruction or action that b begins with.
func frame(b []byte, least int) (int, error) {
	if len(b) < least {
		return 0, errShort
	}
	n := int(be.Uint16(b[2:]))
	if n < least || n%8 != 0 {
		return 0, fmt.Errorf("openflow: action of %d bytes", n)
	}
	if n > len(b) {
		return 0, errShort
	}
	return n, nil
}

func foreign(what string, b []byte) flow.Foreign {
	return flow.Foreign{Text: what + "(" + hex.EncodeToString(b) + ")"}
}

// decodeActions appends the actions of b to as.
func decodeActions(as []flow.Action, b []byte, nested bool) ([]flow.Action, error) {
	if as == nil && len(b) > 0 {
		as = make([]flow.Action, 0, 4)
	}
	for len(b) > 0 {
		n, err := frame(b, 8)
		if err != nil {
			return nil, err
		}
		a, err := decodeAction(b[:n], nested)
		if err != nil {
			return nil, err
		}
		if a == nil {
			a = foreign("action", b[:n])
		}
		as = append(as, a)
		b = b[n:]
	}
	return as, nil
}

// decodeAction is one whole action; nil if it is none that package flow has.
func decodeAction(b []byte, nested bool) (flow.Action, error) {
	switch be.Uint16(b) {
	case actOutput:
		if len(b) != 16 {
			return nil, nil
		}
		if port := be.Uint32(b[4:]); port != flow.PortController {
			return flow.Output{Port: port}, nil
		}
		return flow.Controller{MaxLen: be.Uint16(b[8:])}, nil
	case actDecTTL:
		return flow.DecTTL{}, nil
	case actSetField:
		return decodeSetField(b[4:])
	case actVendor:
		if len(b) >= 16 && be.Uint32(b[4:]) == vendorNicira {
			return decodeVendor(b, nested)
		}
	}
	return nil, nil
}

func decodeSetField(b []byte) (flow.Action, error) {
	x, rest, err := nextOXM(b)
	if err != nil {
		return nil, err
	}
	if !x.known || len(rest) >= 8 {
		return nil, nil
	}
	return flow.SetField{FieldMatch: x.condition()}, nil
}

// decodeVendor is an extension action of 16 bytes at least.
func decodeVendor(b []byte, nested bool) (flow.Action, error) {
	switch subtype := be.Uint16(b[8:]); {
	case subtype == nxRegMove && len(b) == 24:
		width := be.Uint16(b[10:])
		src, ok1 := subfield(b[16:], be.Uint16(b[12:]), width)
		dst, ok2 := subfield(b[20:], be.Uint16(b[14:]), width)
		if ok1 && ok2 {
			return flow.Move{Src: src, Dst: dst}, nil
		}
	case subtype == nxRegLoad && len(b) == 24:
		if dst, ok := packedSubfield(b[12:], be.Uint16(b[10:])); ok {
			return flow.Load{Dst: dst, Value: be.Uint64(b[16:])}, nil
		}
	case subtype == nxRegLoad2:
		return decodeSetField(b[10:])
	case subtype == nxOutputReg && len(b) == 24:
		if src, ok := packedSubfield(b[12:], be.Uint16(b[10:])); ok {
			return flow.OutputReg{Src: src}, nil
		}
	case subtype == nxOutputReg2 && len(b) == 24:
		if src, ok := packedSubfield(b[14:], be.Uint16(b[10:])); ok {
			return flow.OutputReg{Src: src}, nil
		}
	case subtype == nxResubmit && be.Uint16(b[10:]) == portInPort16:
		return flow.Resubmit{Table: flow.Table(b[12])}, nil
	case subtype == nxController && b[14] == reasonAction:
		return flow.Controller{MaxLen: be.Uint16(b[10:]), ID: be.Uint16(b[12:])}, nil
	case subtype == nxController2:
		return decodeController(b[16:])
	case subtype == nxCheckLarger && len(b) == 24:
		if dst, ok := subfield(b[14:], be.Uint16(b[12:]), 1); ok {
			return flow.CheckLarger{Bytes: be.Uint16(b[10:]), Dst: dst}, nil
		}
	case subtype == nxCTClear:
		return flow.CTClear{}, nil
	case subtype == nxCT && len(b) >= 24 && !nested:
		return decodeCT(b)
	}
	return nil, nil
}

func packedSubfield(header []byte, ofs uint16) (flow.Subfield, bool) {
	return subfield(header, ofs>>6, ofs&63+1)
}

func subfield(header []byte, offset, width uint16) (flow.Subfield, bool) {
	f, ok := fieldOf(header)
	s := flow.Subfield{Field: f, Offset: offset, Width: width}
	return s, ok && checkSubfield(s) == nil
}

// decodeController reads the properties of a controller action.
func decodeController(b []byte) (flow.Action, error) {
	a := flow.Controller{MaxLen: 0xffff}
	for len(b) > 0 {
		typ, data, rest, err := nextProp(b)
		if err != nil {
			return nil, err
		}
		switch {
		case typ == propMaxLen && len(data) >= 2:
			a.MaxLen = be.Uint16(data)
		case typ == propID && len(data) >= 2:
			a.ID = be.Uint16(data)
		case typ == propUserData:
			a.UserData = string(data)
		case typ == propMeter && len(data) >= 4:
			a.Meter = be.Uint32(data)
		default:
			return nil, nil
		}
		b = rest
	}
	return a, nil
}

// nextProp splits the first property off b, with its padding.
func nextProp(b []byte) (typ uint16, data, rest []byte, err error) {
	if len(b) < 4 {
		return 0, nil, nil, errShort
	}
	n := int(be.Uint16(b[2:]))
	if n < 4 || n > len(b) {
		return 0, nil, nil, errShort
	}
	return be.Uint16(b), b[4:n], b[min(pad8(n), len(b)):], nil
}

func decodeCT(b []byte) (flow.Action, error) {
	flags := be.Uint16(b[10:])
	a := flow.CT{Commit: flags&1 != 0, Force: flags&2 != 0, Table: flow.Table(b[18])}
	alg := be.Uint16(b[22:])
	if flags > 3 || alg != 0 {
		return nil, nil
	}
	if zone := be.Uint16(b[16:]); be.Uint32(b[12:]) == 0 {
		a.Zone = zone
	} else {
		var ok bool
		if a.ZoneSrc, ok = packedSubfield(b[12:], zone); !ok {
			return nil, nil
		}
	}
	rest := b[24:]
	if len(rest) >= 16 && be.Uint16(rest) == actVendor && be.Uint32(rest[4:]) == vendorNicira && be.Uint16(rest[8:]) == nxNAT {
		n, err := frame(rest, 16)
		if err != nil {
			return nil, err
		}
		if a.NAT, err = decodeNAT(rest[:n]); err != nil {
			return nil, err
		}
		rest = rest[n:]
	}
	var err error
	a.Exec, err = decodeActions(nil, rest, true)
	return a, err
}

// decodeNAT reads a nat action of 16 bytes at least.
func decodeNAT(b []byte) (*flow.NAT, error) {
	flags, present := be.Uint16(b[12:]), be.Uint16(b[14:])
	n := &flow.NAT{Src: flags&1 != 0, Dst: flags&2 != 0, Flags: flags &^ 3}
	b = b[16:]
	for bit := range 6 {
		if present>>bit&1 == 0 {
			continue
		}
		size := [6]int{4, 4, 16, 16, 2, 2}[bit]
		if len(b) < size {
			return nil, errShort
		}
		v := b[:size]
		b = b[size:]
		switch bit {
		case 0, 2:
			n.Min, _ = netip.AddrFromSlice(v)
		case 1, 3:
			n.Max, _ = netip.AddrFromSlice(v)
		case 4:
			n.PortMin = be.Uint16(v)
		case 5:
			n.PortMax = be.Uint16(v)
		}
	}
	return n, nil
}
