package ipam

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"nuage/controller/tenant"
)

// ledger is the leases of one subnet, arranged so that a free address is found without
// looking at every lease: one bit an address, 64 of them a word, and only words with a
// lease in them are kept. It is a pure value: no clock, no input or output, and not safe
// for concurrent use.
type ledger struct {
	words  map[uint32]uint64 // by address/64
	leases map[uint32]entry
	byMAC  map[tenant.MAC][]uint32
	// barred are not chosen; of each, how many vports have it as a virtual IP.
	barred map[uint32]int
	// cursor is the last address that was chosen out of a range.
	cursor map[netip.Prefix]uint32
	// newest is where rotation begins when nothing was chosen yet: the last address that
	// changed hands, on whichever host.
	newest         uint32
	newestRevision int64
}

type entry struct {
	state   tenant.LeaseState
	mac     tenant.MAC
	expires time.Time
}

// lapsed tells whether the address is free again though its lease is still there.
func (e entry) lapsed(now time.Time) bool {
	return e.state != tenant.LeaseBound && !now.Before(e.expires)
}

func newLedger() *ledger {
	return &ledger{
		words:  map[uint32]uint64{},
		leases: map[uint32]entry{},
		byMAC:  map[tenant.MAC][]uint32{},
		barred: map[uint32]int{},
		cursor: map[netip.Prefix]uint32{},
	}
}

// set records the lease of an address.
func (l *ledger) set(lease *tenant.Lease) {
	a := number(lease.Address)
	l.remove(lease.Address)
	l.words[a/64] |= 1 << (a % 64)
	l.leases[a] = entry{lease.State, lease.MAC, lease.Expires}
	if !lease.MAC.IsZero() {
		l.byMAC[lease.MAC] = append(l.byMAC[lease.MAC], a)
	}
	if lease.Revision > l.newestRevision && lease.Use == tenant.UseEndpoint {
		l.newest, l.newestRevision = a, lease.Revision
	}
}

// remove forgets the lease of an address; one that has none is fine.
func (l *ledger) remove(addr netip.Addr) {
	a := number(addr)
	e, ok := l.leases[a]
	if !ok {
		return
	}
	delete(l.leases, a)
	if l.words[a/64] &^= 1 << (a % 64); l.words[a/64] == 0 {
		delete(l.words, a/64)
	}
	if rest := slices.DeleteFunc(l.byMAC[e.mac], func(b uint32) bool { return a == b }); len(rest) > 0 {
		l.byMAC[e.mac] = rest
	} else {
		delete(l.byMAC, e.mac)
	}
}

// bar keeps an address from being chosen, for one more vport or, with -1, for one less.
func (l *ledger) bar(addr netip.Addr, by int) {
	a := number(addr)
	if l.barred[a] += by; l.barred[a] <= 0 {
		delete(l.barred, a)
	}
}

// owned is the addresses that have a lease in the name of mac.
func (l *ledger) owned(mac tenant.MAC) []netip.Addr {
	var as []netip.Addr
	for _, a := range l.byMAC[mac] {
		as = append(as, address(a))
	}
	return as
}

// span is a run of addresses, both ends included, without one of them: the gateway.
type span struct {
	rng    netip.Prefix
	lo, hi uint32
	except uint32
}

// usable is what can be given out of a subnet: the range, or all if that is not valid,
// but never the network, broadcast and gateway addresses.
func usable(sub *tenant.Subnet, rng netip.Prefix) span {
	if !rng.IsValid() {
		rng = sub.CIDR
	}
	return span{
		rng:    rng,
		lo:     max(number(rng.Addr()), number(sub.CIDR.Addr())+1),
		hi:     min(number(tenant.Broadcast(rng)), number(tenant.Broadcast(sub.CIDR))-1),
		except: number(sub.Gateway),
	}
}

// size is how many addresses the span has.
func (s span) size() int {
	n := int(s.hi) - int(s.lo) + 1
	if s.has(s.except) {
		n--
	}
	return max(n, 0)
}

func (s span) has(a uint32) bool { return s.lo <= a && a <= s.hi }

// next is the address to give out: the first without a lease after the one chosen last,
// then from the start of the span; and if all have leases, in the same order the first
// whose lease has lapsed. It changes nothing; see chosen.
func (l *ledger) next(s span, now time.Time) (netip.Addr, bool) {
	if s.size() == 0 {
		return netip.Addr{}, false
	}
	last, ok := l.cursor[s.rng]
	if !ok {
		last = l.newest
	}
	if !s.has(last) {
		last = s.hi
	}
	if a, ok := l.free(s, last+1, s.hi); ok {
		return address(a), true
	}
	if a, ok := l.free(s, s.lo, last); ok {
		return address(a), true
	}
	found, best := false, uint32(0)
	for a, e := range l.leases {
		if !s.has(a) || a == s.except || l.barred[a] > 0 || !e.lapsed(now) {
			continue
		}
		if distance := (a - last - 1); !found || distance < best-last-1 {
			found, best = true, a
		}
	}
	return address(best), found
}

// free is the first address from lo to hi without a lease that is not barred.
func (l *ledger) free(s span, lo, hi uint32) (uint32, bool) {
	for a := lo; a <= hi; {
		unused := ^l.words[a/64] >> (a % 64)
		if unused == 0 {
			a = a/64*64 + 64
			continue
		}
		a += uint32(bits.TrailingZeros64(unused))
		if a > hi {
			break
		}
		if a != s.except && l.barred[a] == 0 {
			return a, true
		}
		a++
	}
	return 0, false
}

// chosen moves the rotation on to an address.
func (l *ledger) chosen(s span, a netip.Addr) { l.cursor[s.rng] = number(a) }

// resting counts the addresses of the span that were released and wait, and says when the
// first of them is free.
func (l *ledger) resting(s span) (n int, until time.Time) {
	for a, e := range l.leases {
		if e.state == tenant.LeaseResting && s.has(a) {
			if n++; until.IsZero() || e.expires.Before(until) {
				until = e.expires
			}
		}
	}
	return n, until
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func address(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}
