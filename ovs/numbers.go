package ovs

import (
	"errors"
	"strconv"
	"time"
)

// Port numbers that we ask for. Those below are left to ovs-vswitchd, which gives the
// lowest to ports that ask for none; the last is OpenFlow's.
const (
	firstNumber = 1024
	lastNumber  = 0xfeff
)

// freedRest is how long a number is not used again after its port is gone: a flow or a
// datapath flow of the old port must not meet the new one.
const freedRest = 5 * time.Minute

// lastNumberKey is where the bridge remembers the last number given, so that the
// rotation goes on after a restart of this process.
const lastNumberKey = "nuage-last-port"

// numbers chooses port numbers in rotation.
type numbers struct {
	last  uint32
	asked map[uint32]string    // given to a port of that name, which the view does not show yet
	freed map[uint32]time.Time // when its port was seen to be gone
}

var errNoNumber = errors.New("no port number is free")

// see follows the change from one view to the next.
func (n *numbers) see(old, new view, now time.Time) {
	if n.asked == nil {
		n.asked, n.freed = map[uint32]string{}, map[uint32]time.Time{}
	}
	if n.last == 0 && new.bridge != nil { // nothing given yet: go on where the process before ended
		if last, err := strconv.ParseUint(new.bridge.ExternalIDs[lastNumberKey], 10, 16); err == nil {
			n.last = uint32(last)
		}
	}
	for name, m := range old.ports {
		if other, still := new.ports[name]; !still || other.OFPort != m.OFPort {
			n.freed[m.OFPort] = now
		}
	}
	for number, at := range n.freed {
		if now.Sub(at) > freedRest {
			delete(n.freed, number)
		}
	}
}

// take gives a number to a port of that name, and the same again until drop.
func (n *numbers) take(name string, v view) (uint32, error) {
	used := map[uint32]bool{}
	for _, m := range v.ports {
		used[m.OFPort] = true
		used[uint32(m.row.OFPortRequest)] = true
	}
	for number, owner := range n.asked {
		if owner == name {
			return number, nil
		}
		used[number] = true
	}
	for range lastNumber - firstNumber + 1 {
		n.last++
		if n.last < firstNumber || n.last > lastNumber {
			n.last = firstNumber
		}
		if _, resting := n.freed[n.last]; !resting && !used[n.last] {
			n.asked[n.last] = name
			return n.last, nil
		}
	}
	return 0, errNoNumber
}

// drop ends what take began: the view shows the port now, or it never will.
func (n *numbers) drop(number uint32) { delete(n.asked, number) }
