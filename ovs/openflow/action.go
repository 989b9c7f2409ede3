package openflow

import (
	"errors"
	"fmt"

	"nuage/ovs/flow"
)

// Action, extension action and instruction types.
const (
	actOutput   = 0
	actDecTTL   = 24
	actSetField = 25
	actVendor   = 0xffff

	nxRegMove     = 6
	nxRegLoad     = 7
	nxResubmit    = 14
	nxOutputReg   = 15
	nxController  = 20
	nxOutputReg2  = 32
	nxRegLoad2    = 33
	nxCT          = 35
	nxNAT         = 36
	nxController2 = 37
	nxCTClear     = 43
	nxCheckLarger = 49

	insGoto  = 1
	insApply = 4
	insMeter = 6

	reasonAction = 1
	portInPort16 = 0xfff8
)

// Properties of nxController2.
const (
	propMaxLen   = 0
	propID       = 1
	propUserData = 3
	propMeter    = 5
)

// appendInstructions appends a flow's actions as instructions: the meter, the actions
// to apply, the table to go to.
func appendInstructions(b []byte, as []flow.Action) ([]byte, error) {
	if len(as) > 0 {
		if m, ok := as[0].(flow.MeterAction); ok {
			b = append(b, 0, insMeter, 0, 8)
			b = be.AppendUint32(b, m.ID)
			as = as[1:]
		}
	}
	var table *flow.Goto
	if len(as) > 0 {
		if g, ok := as[len(as)-1].(flow.Goto); ok {
			table, as = &g, as[:len(as)-1]
		}
	}
	if len(as) > 0 {
		start := len(b)
		b = append(b, 0, insApply, 0, 0, 0, 0, 0, 0)
		var err error
		if b, err = appendActions(b, as); err != nil {
			return nil, err
		}
		finish(b, start)
	}
	if table != nil {
		b = append(b, 0, insGoto, 0, 8, byte(table.Table), 0, 0, 0)
	}
	return b, nil
}

func appendActions(b []byte, as []flow.Action) ([]byte, error) {
	for _, a := range as {
		var err error
		if b, err = appendAction(b, a); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// appendVendor begins an extension action, which finish ends.
func appendVendor(b []byte, subtype uint16) []byte {
	b = append(b, 0xff, 0xff, 0, 0, 0, 0, 0x23, 0x20)
	return be.AppendUint16(b, subtype)
}

func appendAction(b []byte, a flow.Action) ([]byte, error) {
	start := len(b)
	switch a := a.(type) {
	case flow.Output:
		return appendOutput(b, a.Port, 0), nil
	case flow.OutputReg:
		if err := checkSubfield(a.Src); err != nil {
			return nil, err
		}
		b = be.AppendUint16(appendVendor(b, nxOutputReg), ofsBits(a.Src))
		b = appendOXMHeader(b, a.Src.Field)
		b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	case flow.SetField:
		if a.Exact() {
			b = append(b, 0, actSetField, 0, 0)
		} else {
			b = appendVendor(b, nxRegLoad2)
		}
		b = appendOXM(b, &a.FieldMatch)
	case flow.Load:
		if err := checkSubfield(a.Dst); err != nil {
			return nil, err
		}
		b = be.AppendUint16(appendVendor(b, nxRegLoad), ofsBits(a.Dst))
		b = appendOXMHeader(b, a.Dst.Field)
		b = be.AppendUint64(b, a.Value)
	case flow.Move:
		if err := errors.Join(checkSubfield(a.Src), checkSubfield(a.Dst)); err != nil {
			return nil, err
		}
		if a.Src.Width != a.Dst.Width {
			return nil, fmt.Errorf("move of %d bits to %d", a.Src.Width, a.Dst.Width)
		}
		b = be.AppendUint16(appendVendor(b, nxRegMove), a.Src.Width)
		b = be.AppendUint16(b, a.Src.Offset)
		b = be.AppendUint16(b, a.Dst.Offset)
		b = appendOXMHeader(appendOXMHeader(b, a.Src.Field), a.Dst.Field)
	case flow.CheckLarger:
		if err := checkSubfield(a.Dst); err != nil {
			return nil, err
		}
		if a.Dst.Width != 1 {
			return nil, fmt.Errorf("check of the length into %d bits", a.Dst.Width)
		}
		b = be.AppendUint16(appendVendor(b, nxCheckLarger), a.Bytes)
		b = be.AppendUint16(b, a.Dst.Offset)
		b = appendOXMHeader(b, a.Dst.Field)
	case flow.DecTTL:
		return append(b, 0, actDecTTL, 0, 8, 0, 0, 0, 0), nil
	case flow.Resubmit:
		b = be.AppendUint16(appendVendor(b, nxResubmit), portInPort16)
		b = append(b, byte(a.Table), 0, 0, 0)
	case flow.CT:
		var err error
		if b, err = appendCT(b, &a); err != nil {
			return nil, err
		}
	case flow.CTClear:
		b = append(appendVendor(b, nxCTClear), zeros[:6]...)
	case flow.Controller:
		b = appendController(b, a)
	default:
		return nil, fmt.Errorf("action %T has no place there", a)
	}
	return finish(pad(b, start), start), nil
}

func appendOutput(b []byte, port uint32, maxLen uint16) []byte {
	b = be.AppendUint32(append(b, 0, actOutput, 0, 16), port)
	b = be.AppendUint16(b, maxLen)
	return append(b, zeros[:6]...)
}

func appendController(b []byte, a flow.Controller) []byte {
	if a.ID == 0 && a.Meter == 0 && a.UserData == "" {
		return appendOutput(b, flow.PortController, a.MaxLen)
	}
	b = append(appendVendor(b, nxController2), zeros[:6]...)
	if a.MaxLen != 0xffff {
		b = be.AppendUint16(append(b, 0, propMaxLen, 0, 8), a.MaxLen)
		b = append(b, 0, 0)
	}
	if a.ID != 0 {
		b = be.AppendUint16(append(b, 0, propID, 0, 8), a.ID)
		b = append(b, 0, 0)
	}
	if a.UserData != "" {
		start := len(b)
		b = be.AppendUint16(append(b, 0, propUserData), uint16(4+len(a.UserData)))
		b = pad(append(b, a.UserData...), start)
	}
	if a.Meter != 0 {
		b = be.AppendUint32(append(b, 0, propMeter, 0, 8), a.Meter)
	}
	return b
}

func appendCT(b []byte, a *flow.CT) ([]byte, error) {
	var flags uint16
	if a.Commit {
		flags |= 1
	}
	if a.Force {
		flags |= 2
	}
	b = be.AppendUint16(appendVendor(b, nxCT), flags)
	if a.ZoneSrc.Width != 0 {
		if err := checkSubfield(a.ZoneSrc); err != nil {
			return nil, err
		}
		b = be.AppendUint16(appendOXMHeader(b, a.ZoneSrc.Field), ofsBits(a.ZoneSrc))
	} else {
		b = be.AppendUint16(append(b, 0, 0, 0, 0), a.Zone)
	}
	b = append(b, byte(a.Table), 0, 0, 0, 0, 0)
	if a.NAT != nil {
		start := len(b)
		b = finish(pad(appendNAT(b, a.NAT), start), start)
	}
	return appendActions(b, a.Exec)
}

func appendNAT(b []byte, n *flow.NAT) []byte {
	start := len(b)
	flags := n.Flags
	if n.Src {
		flags |= 1
	}
	if n.Dst {
		flags |= 2
	}
	b = append(appendVendor(b, nxNAT), 0, 0)
	b = be.AppendUint16(b, flags)
	b = append(b, 0, 0)
	var present uint16
	if n.Min.IsValid() {
		bit := uint16(1)
		if n.Min.Is6() {
			bit = 4
		}
		present |= bit
		b = append(b, n.Min.AsSlice()...)
		if n.Max.IsValid() {
			present |= 2 * bit
			b = append(b, n.Max.AsSlice()...)
		}
	}
	if n.PortMin != 0 {
		present |= 16
		b = be.AppendUint16(b, n.PortMin)
		if n.PortMax != 0 {
			present |= 32
			b = be.AppendUint16(b, n.PortMax)
		}
	}
	be.PutUint16(b[start+14:], present)
	return b
}

func ofsBits(s flow.Subfield) uint16 { return s.Offset<<6 | (s.Width - 1) }

func checkSubfield(s flow.Subfield) error {
	if s.Width < 1 || int(s.Offset)+int(s.Width) > int(s.Field.Bits()) {
		return fmt.Errorf("%v has no bits %d..%d", s.Field, s.Offset, int(s.Offset)+int(s.Width)-1)
	}
	return nil
}
