package multi

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"testing"
	"time"

	"nuage/ovs/pipeline"
	"nuage/test/host"
)

// A container cannot speak to any host's tunnel port: what it puts in VXLAN's clothes, with
// a true VNI and true addresses inside, leaves neither its domain nor its host.
func TestTenantsReachNoVTEP(t *testing.T) {
	t.Parallel()
	f := host.SharedFleet(t)
	one, two := f.Host(1), f.Host(2)
	s := newSpread(f, "App1", []string{"front=10.111.1.0/24"})
	mac := map[int]string{}
	var inside []*host.Listener
	for n := 1; n <= host.Size; n++ {
		mac[n] = f.Host(n).Endpoint(s.containers[n], s.network[n]).MacAddress
		inside = append(inside, f.Host(n).Listen(s.containers[n], ""))
	}
	vni, err := strconv.ParseFloat(fmt.Sprint(in(one.Get("subnets"), "address", "10.111.1.0/24")[0]["vni"]), 64)
	if err != nil {
		t.Fatal(err)
	}
	underlay := one.Listen("", "nuage-uplink")

	const mark = "nuage in VXLAN"
	from := func(n, to int, data string) []byte {
		return host.Ethernet(mac[to], mac[n], 0x800, host.IPv4{Src: s.ip[n], Dst: s.ip[to], Protocol: 17, Payload: host.UDP(1000, 9, data)}.Bytes()...)
	}
	outer := func(vtep, router string, inner []byte) []byte {
		header := binary.BigEndian.AppendUint32([]byte{8, 0, 0, 0}, uint32(vni)<<8)
		return host.Ethernet(router, mac[1], 0x800, host.IPv4{Src: s.ip[1], Dst: vtep, Protocol: 17,
			Payload: host.UDP(50000, 4789, string(append(header, inner...)))}.Bytes()...)
	}
	const gateway = "0a:6e:75:61:67:65"
	frames := [][]byte{
		outer(one.VTEP(), gateway, from(2, 1, mark)), outer(two.VTEP(), gateway, from(1, 2, mark)),
		outer(two.VTEP(), gateway, from(3, 2, mark)), outer("10.200.0.254", gateway, from(3, 2, mark)),
		outer(two.VTEP(), "02:00:0a:c9:00:02", from(1, 2, mark)), outer(one.VTEP(), "02:00:0a:c9:00:01", from(2, 1, mark)),
		outer("10.200.0.255", "ff:ff:ff:ff:ff:ff", from(1, 2, mark)),
	}
	before := dropped(t, one, pipeline.DropOutside)
	one.Send(s.containers[1], frames...)
	one.Eventually(10*time.Second, "they are counted", func() error {
		if now := dropped(t, one, pipeline.DropOutside); now < before+4 {
			return errorf("%d, before %d", now, before)
		}
		return nil
	})
	const honest = "nuage honest"
	one.Send(s.containers[1], from(1, 2, honest))
	inside[1].Await(honest)
	underlay.Await(honest)
	for i, l := range append(inside, underlay) {
		if n := l.Got(mark); n != 0 {
			t.Errorf("%d frames came to listener %d", n, i+1)
		}
	}
}
