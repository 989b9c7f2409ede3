package openflow

import "encoding/binary"

// The protocol's version and the message types in use.
const (
	version = 5 // OpenFlow 1.4

	typeHello            = 0
	typeError            = 1
	typeEchoRequest      = 2
	typeEchoReply        = 3
	typeExperimenter     = 4
	typeFeaturesRequest  = 5
	typeFeaturesReply    = 6
	typeSetConfig        = 9
	typePortStatus       = 12
	typePacketOut        = 13
	typeFlowMod          = 14
	typeMultipartRequest = 18
	typeMultipartReply   = 19
	typeBarrierRequest   = 20
	typeBarrierReply     = 21
	typeMeterMod         = 29
	typeBundleControl    = 33
	typeBundleAdd        = 34

	vendorNicira = 0x2320

	fragmentsShowPorts = 3 // OFPC_FRAG_NX_MATCH

	headerLen  = 8
	maxMessage = 65535
	noBuffer   = 0xffffffff
	anyPort    = 0xffffffff
)

var be = binary.BigEndian

// A message is a header's type and xid, and what follows the header.
type message struct {
	typ  uint8
	xid  uint32
	body []byte
}

// appendHeader begins a message; finish sets its length.
func appendHeader(b []byte, typ uint8, xid uint32) []byte {
	b = append(b, version, typ, 0, 0)
	return be.AppendUint32(b, xid)
}

func finish(b []byte, start int) []byte {
	be.PutUint16(b[start+2:], uint16(len(b)-start))
	return b
}

var zeros [8]byte

// pad appends zeros until the bytes since start fill words of 8.
func pad(b []byte, start int) []byte { return append(b, zeros[:-(len(b)-start)&7]...) }

func pad8(n int) int { return (n + 7) &^ 7 }
