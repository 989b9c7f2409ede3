package openflow

import (
	"bufio"
	"bytes"
	"os"
	"testing"

	"nuage/ovs/flow"
)

// testdata/stats.bin is what ovs-vswitchd 3.1.0 reported of the flows of
// testdata/flows.txt and some that package flow has no words for.

// FuzzDecode reads any bytes as each kind of message. Whatever is accepted can be
// printed, is worth no more memory than its bytes allow, and if we can write it, we read
// the same again.
func FuzzDecode(f *testing.F) {
	seed, err := os.ReadFile("testdata/stats.bin")
	if err != nil {
		f.Fatal(err)
	}
	for len(seed) >= 2 { // one flow a seed, as the switch wrote it
		n := int(be.Uint16(seed))
		f.Add(seed[:n])
		seed = seed[n:]
	}
	for _, seed := range [][]byte{
		// A packet-in with packet, table, cookie, reason, metadata and user data.
		[]byte("\x00\x00\x23\x20\x00\x00\x00\x1e" + "\x00\x00\x00\x08pack" + "\x00\x03\x00\x05\x04\x00\x00\x00" +
			"\x00\x04\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\xc0\xff\xee" + "\x00\x05\x00\x05\x01\x00\x00\x00" +
			"\x00\x06\x00\x0c\x00\x01\x06\x04\x00\x00\x00\x77\x00\x00\x00\x00" + "\x00\x07\x00\x07dhc\x00"),
		append([]byte{PortAdded, 7: 0, 11: 11, 16: 2}, make([]byte, 31)...),                    // a port status
		{0, 24, 0, 5, 0, 0, 0, 3, 0, 1, 0, 16, 0, 0, 0xc3, 0x50, 0, 0, 0x61, 0xa8, 0, 0, 0, 0}, // a meter
		{0xff, 0xff, 0, 3, 0, 0, 0x23, 0x20},                                                   // an extension's error
		{0, 1, 0, 8, 0, 0, 0, 0x7e},                                                            // a hello's versions
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		stats, err := decodeFlowStats(nil, b)
		if err != nil && stats != nil {
			t.Error("flows beside an error")
		}
		if len(stats) > len(b)/52 {
			t.Errorf("%d flows in %d bytes", len(stats), len(b))
		}
		for _, s := range stats {
			again(t, s.Flow)
		}
		if as, err := decodeActions(nil, b, false); err == nil && len(as) > len(b)/8 {
			t.Errorf("%d actions in %d bytes", len(as), len(b))
		}
		m := message{body: b}
		_ = decodeError(m).Error()
		for _, m.typ = range []uint8{typePortStatus, typeExperimenter} {
			decodeEvent(m)
		}
		decodePacketIn(b)
		decodeMeters(nil, b)
		decodeMeterStats(nil, b)
		decodeOXMs(b)
		speaks(4, b)
		readMessage(bufio.NewReader(bytes.NewReader(b)))
	})
}

// again writes a flow and reads it back.
func again(t *testing.T, f flow.Flow) {
	t.Helper()
	text := f.String()
	if f.Key().Compare(f.Key()) != 0 || !f.Equal(f) {
		t.Errorf("%s is not itself", text)
	}
	match := appendMatch(nil, f.Match)
	m, rest, err := decodeMatch(match)
	if err != nil || m != f.Match || len(rest) != 0 {
		t.Errorf("match %v is read as %v, %v", f.Match, m, err)
	}
	b, err := appendInstructions(nil, f.Actions)
	if err != nil {
		return // it has what we do not write
	}
	as, err := decodeInstructions(b)
	if g := (flow.Flow{Actions: as}); err != nil || !flow.EqualActions(as, f.Actions) {
		t.Errorf("actions of %s are read as %v, %v", text, g, err)
	}
}
