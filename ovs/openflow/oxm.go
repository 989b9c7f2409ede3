package openflow

import (
	"errors"
	"fmt"

	"nuage/ovs/flow"
)

// OXM classes.
const (
	classNXM0  = 0x0000
	classNXM1  = 0x0001
	classEric  = 0x1000
	classBasic = 0x8000
	classExp   = 0xffff

	experimenterONF = 0x4f4e4600
)

// An oxmField is how a field is written: class and number of its header, bytes of its
// value.
type oxmField struct {
	class uint16
	num   uint8
	size  uint8
}

// oxmFields are the headers that we send. aliases are others that a switch may use.
var oxmFields = [flow.NumFields]oxmField{
	flow.PktMark:       {classNXM1, 33, 4},
	flow.CTState:       {classNXM1, 105, 4},
	flow.CTZone:        {classNXM1, 106, 2},
	flow.CTMark:        {classNXM1, 107, 4},
	flow.CTLabel:       {classNXM1, 108, 16},
	flow.CTIPv4Src:     {classNXM1, 120, 4},
	flow.CTIPv4Dst:     {classNXM1, 121, 4},
	flow.CTIPProto:     {classNXM1, 119, 1},
	flow.CTPortSrc:     {classNXM1, 124, 2},
	flow.CTPortDst:     {classNXM1, 125, 2},
	flow.Reg0:          {classNXM1, 0, 4},
	flow.Reg1:          {classNXM1, 1, 4},
	flow.Reg2:          {classNXM1, 2, 4},
	flow.Reg3:          {classNXM1, 3, 4},
	flow.Reg4:          {classNXM1, 4, 4},
	flow.Reg5:          {classNXM1, 5, 4},
	flow.Reg6:          {classNXM1, 6, 4},
	flow.Reg7:          {classNXM1, 7, 4},
	flow.Reg8:          {classNXM1, 8, 4},
	flow.Reg9:          {classNXM1, 9, 4},
	flow.Reg10:         {classNXM1, 10, 4},
	flow.Reg11:         {classNXM1, 11, 4},
	flow.Reg12:         {classNXM1, 12, 4},
	flow.Reg13:         {classNXM1, 13, 4},
	flow.Reg14:         {classNXM1, 14, 4},
	flow.Reg15:         {classNXM1, 15, 4},
	flow.XXReg0:        {classNXM1, 111, 16},
	flow.XXReg1:        {classNXM1, 112, 16},
	flow.XXReg2:        {classNXM1, 113, 16},
	flow.XXReg3:        {classNXM1, 114, 16},
	flow.TunID:         {classBasic, 38, 8},
	flow.TunSrc:        {classNXM1, 31, 4},
	flow.TunDst:        {classNXM1, 32, 4},
	flow.Metadata:      {classBasic, 2, 8},
	flow.InPort:        {classBasic, 0, 4},
	flow.VLANVID:       {classBasic, 6, 2},
	flow.VLANPCP:       {classBasic, 7, 1},
	flow.EthSrc:        {classBasic, 4, 6},
	flow.EthDst:        {classBasic, 3, 6},
	flow.EthType:       {classBasic, 5, 2},
	flow.IPv4Src:       {classBasic, 11, 4},
	flow.IPv4Dst:       {classBasic, 12, 4},
	flow.IPv6Src:       {classBasic, 26, 16},
	flow.IPv6Dst:       {classBasic, 27, 16},
	flow.ARPSPA:        {classBasic, 22, 4},
	flow.ARPTPA:        {classBasic, 23, 4},
	flow.IPProto:       {classBasic, 10, 1},
	flow.ARPOp:         {classBasic, 21, 2},
	flow.ARPSHA:        {classBasic, 24, 6},
	flow.ARPTHA:        {classBasic, 25, 6},
	flow.IPDSCP:        {classBasic, 8, 1},
	flow.IPECN:         {classBasic, 9, 1},
	flow.IPTTL:         {classNXM1, 29, 1},
	flow.IPFrag:        {classNXM1, 26, 1},
	flow.ICMPType:      {classBasic, 19, 1},
	flow.ICMPCode:      {classBasic, 20, 1},
	flow.ICMPv6Type:    {classBasic, 29, 1},
	flow.ICMPv6Code:    {classBasic, 30, 1},
	flow.NDTarget:      {classBasic, 31, 16},
	flow.NDSLL:         {classBasic, 32, 6},
	flow.NDTLL:         {classBasic, 33, 6},
	flow.NDReserved:    {classEric, 1, 4},
	flow.NDOptionsType: {classEric, 2, 1},
	flow.TCPSrc:        {classBasic, 13, 2},
	flow.TCPDst:        {classBasic, 14, 2},
	flow.UDPSrc:        {classBasic, 15, 2},
	flow.UDPDst:        {classBasic, 16, 2},
	flow.SCTPSrc:       {classBasic, 17, 2},
	flow.SCTPDst:       {classBasic, 18, 2},
	flow.TCPFlags:      {classNXM1, 34, 2},
}

// aliases are the older headers of some fields, which the switch writes for subfields.
var aliases = []struct {
	class uint16
	num   uint8
	field flow.Field
}{
	{classNXM1, 16, flow.TunID}, {classNXM1, 17, flow.ARPSHA}, {classNXM1, 18, flow.ARPTHA},
	{classNXM1, 19, flow.IPv6Src}, {classNXM1, 20, flow.IPv6Dst}, {classNXM1, 21, flow.ICMPv6Type},
	{classNXM1, 22, flow.ICMPv6Code}, {classNXM1, 23, flow.NDTarget}, {classNXM1, 24, flow.NDSLL},
	{classNXM1, 25, flow.NDTLL}, {classNXM1, 28, flow.IPECN},
	{classNXM0, 1, flow.EthDst}, {classNXM0, 2, flow.EthSrc}, {classNXM0, 3, flow.EthType},
	{classNXM0, 6, flow.IPProto}, {classNXM0, 7, flow.IPv4Src}, {classNXM0, 8, flow.IPv4Dst},
	{classNXM0, 9, flow.TCPSrc}, {classNXM0, 10, flow.TCPDst}, {classNXM0, 11, flow.UDPSrc},
	{classNXM0, 12, flow.UDPDst}, {classNXM0, 13, flow.ICMPType}, {classNXM0, 14, flow.ICMPCode},
	{classNXM0, 15, flow.ARPOp}, {classNXM0, 16, flow.ARPSPA}, {classNXM0, 17, flow.ARPTPA},
}

// byNumber finds a field plus one by class (classIndex) and number.
var byNumber = func() (t [4][128]uint8) {
	for f, o := range oxmFields {
		t[classIndex(o.class)][o.num] = uint8(f) + 1
	}
	for _, a := range aliases {
		t[classIndex(a.class)][a.num] = uint8(a.field) + 1
	}
	return t
}()

func classIndex(class uint16) int {
	switch class {
	case classNXM0:
		return 0
	case classNXM1:
		return 1
	case classBasic:
		return 2
	case classEric:
		return 3
	}
	return -1
}

var errShort = errors.New("openflow: message ends early")

// An oxm is one match entry as it came.
type oxm struct {
	field  flow.Field
	known  bool
	masked bool
	data   []byte // value, and mask if masked
}

// nextOXM splits the first entry off b.
func nextOXM(b []byte) (x oxm, rest []byte, err error) {
	if len(b) < 4 {
		return x, nil, errShort
	}
	n := int(b[3])
	if len(b) < 4+n {
		return x, nil, errShort
	}
	x.data, rest = b[4:4+n], b[4+n:]
	x.masked = b[2]&1 != 0
	x.field, x.known = fieldOf(b)
	if x.known && b[0] == 0xff {
		x.data = x.data[4:]
	}
	want := int(oxmFields[x.field].size)
	if x.masked {
		want *= 2
	}
	x.known = x.known && len(x.data) == want
	return x, rest, nil
}

// fieldOf is the field of a header, which has 4 bytes at least.
func fieldOf(b []byte) (flow.Field, bool) {
	class, num := be.Uint16(b), b[2]>>1
	if class == classExp {
		ok := len(b) >= 8 && b[3] >= 4 && be.Uint32(b[4:]) == experimenterONF && num == 42
		return flow.TCPFlags, ok
	}
	if i := classIndex(class); i >= 0 {
		if f := byNumber[i][num]; f > 0 {
			return flow.Field(f - 1), true
		}
	}
	return 0, false
}

// condition is the entry as a flow has it.
func (x oxm) condition() flow.FieldMatch {
	c := flow.FieldMatch{Field: x.field}
	ones, n := x.field.Ones(), int(oxmFields[x.field].size)
	if x.masked {
		copy(c.Mask[16-n:], x.data[n:])
		for i := range c.Mask {
			c.Mask[i] &= ones[i]
		}
	} else {
		c.Mask = ones
	}
	copy(c.Value[16-n:], x.data[:n])
	for i := range c.Value {
		c.Value[i] &= c.Mask[i]
	}
	return c
}

// appendOXM appends a match entry, or the argument of a set_field.
func appendOXM(b []byte, c *flow.FieldMatch) []byte {
	o := &oxmFields[c.Field]
	n := int(o.size)
	if c.Exact() {
		b = append(b, byte(o.class>>8), byte(o.class), o.num<<1, o.size)
		return append(b, c.Value[16-n:]...)
	}
	b = append(b, byte(o.class>>8), byte(o.class), o.num<<1|1, 2*o.size)
	b = append(b, c.Value[16-n:]...)
	return append(b, c.Mask[16-n:]...)
}

// appendOXMHeader appends the bare header that names a field.
func appendOXMHeader(b []byte, f flow.Field) []byte {
	o := &oxmFields[f]
	return append(b, byte(o.class>>8), byte(o.class), o.num<<1, o.size)
}

// appendMatch appends a match structure, padded.
func appendMatch(b []byte, m flow.Match) []byte {
	start := len(b)
	b = append(b, 0, 1, 0, 0)
	for c := range m.All() {
		b = appendOXM(b, &c)
	}
	b = append(b, m.Foreign()...)
	be.PutUint16(b[start+2:], uint16(len(b)-start))
	return pad(b, start)
}

// decodeMatch reads a match structure, and returns what is behind its padding.
func decodeMatch(b []byte) (m flow.Match, rest []byte, err error) {
	if len(b) < 4 {
		return m, nil, errShort
	}
	typ, n := be.Uint16(b), int(be.Uint16(b[2:]))
	if typ != 1 || n < 4 {
		return m, nil, fmt.Errorf("openflow: match of type %d, %d bytes", typ, n)
	}
	if len(b) < pad8(n) {
		return m, nil, errShort
	}
	m, err = decodeOXMs(b[4:n])
	return m, b[pad8(n):], err
}

// decodeOXMs reads the entries of a match.
func decodeOXMs(b []byte) (m flow.Match, err error) {
	var (
		space   [16]flow.FieldMatch
		conds   = space[:0]
		seen    [flow.NumFields]bool
		foreign []byte
	)
	for len(b) > 0 {
		x, rest, err := nextOXM(b)
		switch {
		case err != nil:
			return m, err
		case !x.known, x.field >= flow.XXReg0:
			foreign = append(foreign, b[:len(b)-len(rest)]...)
		case seen[x.field]:
			return m, fmt.Errorf("openflow: match has %v twice", x.field)
		default:
			seen[x.field] = true
			conds = append(conds, x.condition())
		}
		b = rest
	}
	m = flow.NewMatch(conds...)
	if foreign != nil {
		m = m.WithForeign(string(foreign))
	}
	return m, nil
}
