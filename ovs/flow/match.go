package flow

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math/bits"
	"net/netip"
	"strings"
)

// Bytes holds a field's value or mask, right-aligned, in network order.
type Bytes [16]byte

// MAC is a hardware address.
type MAC [6]byte

// FieldMatch is a condition on one field, or the value of a SetField. An exact match
// has ones for the whole width of the field. Value has no bit outside Mask.
type FieldMatch struct {
	Field       Field
	Value, Mask Bytes
}

// Eq is an exact match on an integer field. It panics on a value wider than the field:
// a defect of the caller's.
func Eq(f Field, v uint64) FieldMatch {
	return Masked(f, v, ^uint64(0)>>max(0, 64-int(f.Bits())))
}

// EqMAC is an exact match on a hardware address field.
func EqMAC(f Field, m MAC) FieldMatch {
	c := FieldMatch{Field: f, Mask: exact[f]}
	copy(c.Value[10:], m[:])
	return c.checked()
}

// MaskedMAC matches some bits of a hardware address field.
func MaskedMAC(f Field, m, mask MAC) FieldMatch {
	c := FieldMatch{Field: f}
	copy(c.Mask[10:], mask[:])
	for i := range m {
		c.Value[10+i] = m[i] & mask[i]
	}
	return c.checked()
}

// EqIP is an exact match on an address field of the address's family. It panics on an
// address of the other family.
func EqIP(f Field, a netip.Addr) FieldMatch {
	a = a.Unmap()
	return InPrefix(f, netip.PrefixFrom(a, a.BitLen()))
}

// InPrefix matches the addresses of a prefix; of a prefix of length 0, all packets of
// the address family. It panics on a prefix of the other family.
func InPrefix(f Field, p netip.Prefix) FieldMatch {
	a, n := p.Addr().Unmap(), p.Bits()
	if p.Addr().Is4In6() {
		n -= 96
	}
	if n < 0 || a.BitLen() != int(f.Bits()) || (fields[f].kind != ipv4 && fields[f].kind != ipv6) {
		panic(fmt.Sprintf("flow: %v is no prefix for %v", p, f))
	}
	c := FieldMatch{Field: f}
	off := 16 - a.BitLen()/8
	for i := range n {
		c.Mask[off+i/8] |= 0x80 >> (i % 8)
	}
	if a.Is4() {
		b := a.As4()
		copy(c.Value[off:], b[:])
	} else {
		c.Value = a.As16()
	}
	return c.masked()
}

// Masked matches some bits of an integer field. Where the field is wider than 64 bits,
// the low 64 of them. It panics on a value or mask wider than the field.
func Masked(f Field, v, mask uint64) FieldMatch {
	c := FieldMatch{Field: f}
	binary.BigEndian.PutUint64(c.Value[8:], v)
	binary.BigEndian.PutUint64(c.Mask[8:], mask)
	if f.Bits() > 64 && mask == ^uint64(0) {
		c.Mask = exact[f]
	}
	for i := range c.Value {
		if c.Value[i]&^exact[f][i] != 0 {
			panic(fmt.Sprintf("flow: %#x is too wide for %v", v, f))
		}
	}
	return c.masked().checked()
}

func (c FieldMatch) masked() FieldMatch {
	for i := range c.Value {
		c.Value[i] &= c.Mask[i]
	}
	return c
}

func (c FieldMatch) checked() FieldMatch {
	for i := range c.Mask {
		if c.Mask[i]&^exact[c.Field][i] != 0 {
			panic(fmt.Sprintf("flow: mask %x is too wide for %v", c.Mask, c.Field))
		}
	}
	return c
}

// Exact reports whether the condition fixes every bit of the field.
func (c FieldMatch) Exact() bool { return c.Mask == exact[c.Field] }

// Uint is the low 64 bits of the value.
func (c FieldMatch) Uint() uint64 { return binary.BigEndian.Uint64(c.Value[8:]) }

// MaskUint is the low 64 bits of the mask.
func (c FieldMatch) MaskUint() uint64 { return binary.BigEndian.Uint64(c.Mask[8:]) }

// Match is a conjunction of conditions, at most one a field, in canonical form: two
// matches are the same condition exactly if they are ==. The zero Match is every packet.
type Match struct {
	// For each condition in Field order: the field's number, with maskBit if a mask
	// follows the value; the value; the mask. Then, after foreignMark, what the switch
	// reported and this package has no Field for.
	enc string
}

const (
	maskBit     = 0x80
	foreignMark = 0x7f
)

// NewMatch is the conjunction of conditions. What a condition implies about the packet
// is added where only one thing can be meant: an arp_tpa is in an ARP packet, an ip_dst
// in an IPv4 packet, an icmp_type in an ICMP packet, a tcp_dst in a TCP packet; but over
// which of IPv4 and IPv6 the TCP runs, and which ICMPv6 type an nd_target comes in, the
// caller says. The same condition twice is one. NewMatch panics on two different
// conditions on one field, which is a defect of the caller's, never of input.
func NewMatch(fs ...FieldMatch) Match {
	var b builder
	for i := range fs {
		b.put(&fs[i])
	}
	return b.match("")
}

// And is m with more conditions, under the rules of NewMatch.
func (m Match) And(fs ...FieldMatch) Match {
	var b builder
	for c := range m.All() {
		b.put(&c)
	}
	for i := range fs {
		b.put(&fs[i])
	}
	return b.match(m.Foreign())
}

// WithForeign is m with conditions in a form that only their writer understands; it is
// for package openflow, so that a flow with fields unknown here can be told apart and
// deleted.
func (m Match) WithForeign(oxm string) Match {
	enc := m.enc[:len(m.enc)-m.foreignLen()]
	if oxm != "" {
		enc += string(rune(foreignMark)) + oxm
	}
	return Match{enc}
}

// Foreign is what WithForeign has set.
func (m Match) Foreign() string {
	if n := m.foreignLen(); n > 0 {
		return m.enc[len(m.enc)-n+1:]
	}
	return ""
}

func (m Match) foreignLen() int {
	rest := m.enc
	for rest != "" {
		if rest[0] == foreignMark {
			return len(rest)
		}
		rest = rest[condLen(rest):]
	}
	return 0
}

// All yields the conditions in Field order.
func (m Match) All() iter.Seq[FieldMatch] {
	return func(yield func(FieldMatch) bool) {
		for rest := m.enc; rest != "" && rest[0] != foreignMark; {
			n := condLen(rest)
			if !yield(decodeCond(rest[:n])) {
				return
			}
			rest = rest[n:]
		}
	}
}

// Get is the condition on a field, if there is one.
func (m Match) Get(f Field) (FieldMatch, bool) {
	for rest := m.enc; rest != "" && rest[0] != foreignMark; {
		n := condLen(rest)
		if Field(rest[0]&^maskBit) == f {
			return decodeCond(rest[:n]), true
		}
		rest = rest[n:]
	}
	return FieldMatch{}, false
}

func condLen(s string) int {
	n := Field(s[0] &^ maskBit).size()
	if s[0]&maskBit != 0 {
		n *= 2
	}
	return 1 + n
}

func decodeCond(s string) FieldMatch {
	c := FieldMatch{Field: Field(s[0] &^ maskBit)}
	n := c.Field.size()
	copy(c.Value[16-n:], s[1:1+n])
	if s[0]&maskBit != 0 {
		copy(c.Mask[16-n:], s[1+n:])
	} else {
		c.Mask = exact[c.Field]
	}
	return c
}

// A builder gathers conditions by field.
type builder struct {
	has  fieldSet
	cond [XXReg0]FieldMatch
}

// fieldSet is a set of fields below XXReg0.
type fieldSet [(XXReg0 + 63) / 64]uint64

func (s *fieldSet) add(f Field)      { s[f/64] |= 1 << (f % 64) }
func (s *fieldSet) has(f Field) bool { return s[f/64]&(1<<(f%64)) != 0 }

// all yields the fields in their order; one that is added meanwhile perhaps not.
func (s *fieldSet) all(yield func(Field) bool) {
	for i, rest := range s {
		for ; rest != 0; rest &= rest - 1 {
			if !yield(Field(64*i + bits.TrailingZeros64(rest))) {
				return
			}
		}
	}
}

func (b *builder) put(c *FieldMatch) {
	if c.Field >= XXReg0 {
		b.putQuad(c)
		return
	}
	if b.has.has(c.Field) {
		if b.cond[c.Field] != *c {
			panic(fmt.Sprintf("flow: two conditions on %v", c.Field))
		}
		return
	}
	b.has.add(c.Field)
	b.cond[c.Field] = *c
}

func (b *builder) putQuad(c *FieldMatch) {
	for i := range Field(4) {
		part := FieldMatch{Field: Reg0 + 4*(c.Field-XXReg0) + i}
		copy(part.Value[12:], c.Value[4*i:4*i+4])
		copy(part.Mask[12:], c.Mask[4*i:4*i+4])
		if part.Mask != (Bytes{}) {
			b.put(&part)
		}
	}
}

func (b *builder) match(foreign string) Match {
	given := b.has
	for f := range given.all {
		for _, im := range fields[f].implies {
			if !b.has.has(im.field) {
				c := Eq(im.field, im.value)
				b.put(&c)
			}
		}
	}
	buf := make([]byte, 0, 256)
	for f := range b.has.all {
		buf = appendCond(buf, &b.cond[f])
	}
	if foreign != "" {
		buf = append(append(buf, foreignMark), foreign...)
	}
	return Match{string(buf)}
}

func appendCond(buf []byte, c *FieldMatch) []byte {
	n := 16 - c.Field.size()
	switch c.Mask {
	case exact[c.Field]:
		return append(append(buf, byte(c.Field)), c.Value[n:]...)
	case Bytes{}: // no condition; what it implies has been added
		return buf
	}
	buf = append(append(buf, byte(c.Field)|maskBit), c.Value[n:]...)
	return append(buf, c.Mask[n:]...)
}

// compare orders matches, by field first.
func (m Match) compare(o Match) int { return strings.Compare(m.enc, o.enc) }
