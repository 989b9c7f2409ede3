package openflow

import (
	"errors"
	"fmt"

	"nuage/ovs/flow"
)

const (
	flowAdd          = 0
	flowDeleteStrict = 4

	reservedCookie = ^uint64(0) // the switch would take it for "do not change"
)

// appendFlowMod appends a flow-mod message.
func appendFlowMod(b []byte, xid uint32, command byte, f *flow.Flow) ([]byte, error) {
	start := len(b)
	b = appendHeader(b, typeFlowMod, xid)
	cookie := f.Cookie
	if command == flowDeleteStrict {
		cookie = 0
	} else if cookie == reservedCookie {
		return nil, errors.New("the cookie of all ones is reserved")
	}
	if err := checkTuple(f.Match); err != nil {
		return nil, err
	}
	b = be.AppendUint64(b, cookie)
	b = be.AppendUint64(b, 0) // cookie mask
	b = append(b, byte(f.Table), command, 0, 0, 0, 0)
	b = be.AppendUint16(b, f.Priority)
	b = be.AppendUint32(b, noBuffer)
	b = be.AppendUint32(b, anyPort)
	b = be.AppendUint32(b, anyPort) // any group
	b = append(b, 0, 0, 0, 0)       // flags, importance
	b = appendMatch(b, f.Match)
	if command == flowAdd {
		var err error
		if b, err = appendInstructions(b, f.Actions); err != nil {
			return nil, err
		}
	}
	if len(b)-start > maxMessage-16 { // a bundle adds 16
		return nil, fmt.Errorf("%d bytes long", len(b)-start)
	}
	return finish(b, start), nil
}

// checkTuple refuses conditions that the switch would keep but not report: such a flow
// would be found nowhere and could not be deleted by what is found.
func checkTuple(m flow.Match) error {
	proto, ok := m.Get(flow.CTIPProto)
	if ok && proto.Uint() == 0 {
		return fmt.Errorf("the switch does not report a condition on %v 0", flow.CTIPProto)
	}
	for _, f := range []flow.Field{flow.CTPortSrc, flow.CTPortDst} {
		if _, has := m.Get(f); has && !ok {
			return fmt.Errorf("the switch reports a condition on %v only with one on %v", f, flow.CTIPProto)
		}
	}
	return nil
}
