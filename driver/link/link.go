// Package link makes and removes the veth pair of an attachment: one end for the switch,
// one for the container, and puts the latter into a container where Docker does not. It is
// the only importer of netlink.
//
// It never touches a link that is not named as one of ours, and no thread that has been in
// a container's namespace ever does anything else.
package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Spec is a wanted pair.
type Spec struct {
	Name string // the switch's end, see Names
	Peer string // the container's end
	MAC  net.HardwareAddr
	MTU  int
	// Offload leaves checksums to whoever receives. Only the kernel's datapath can: to the
	// userspace one every TCP segment would be broken.
	Offload bool
}

// patience is how long the kernel may take for an answer.
const patience = 10 * time.Second

// Names are the ends' names for an endpoint ID of at least eleven characters. They fit
// the kernel's fifteen.
func Names(endpointID string) (host, container string) {
	return "nu" + endpointID[:11], "nc" + endpointID[:11]
}

var ours = regexp.MustCompile(`^nu[0-9a-f]{11}$`)

// Links works in one network namespace. It is safe for concurrent use.
type Links struct {
	make, remove *nl.SocketHandle
	query        *netlink.Handle
	control      int // a datagram socket, for ethtool's ioctl
	close        sync.Once
}

// Open is for the network namespace of the calling thread, then and for good.
func Open() (*Links, error) {
	l := &Links{control: -1}
	var err error
	if l.make, err = socket(); err == nil {
		// A removal waits in the kernel for 17 ms; on a socket of its own nobody waits with it.
		if l.remove, err = socket(); err == nil {
			if l.query, err = netlink.NewHandle(unix.NETLINK_ROUTE); err == nil {
				l.control, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			}
		}
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("link: %w", err)
	}
	return l, nil
}

func socket() (*nl.SocketHandle, error) {
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	timeout := unix.NsecToTimeval(int64(patience))
	if err := errors.Join(s.SetSendTimeout(&timeout), s.SetReceiveTimeout(&timeout)); err != nil {
		s.Close()
		return nil, err
	}
	// The kernel's own words ("veth: …") when it refuses; old kernels have none.
	_ = s.SetExtAck(true)
	return &nl.SocketHandle{Socket: s}, nil
}

// Close ends the use of l.
func (l *Links) Close() {
	l.close.Do(func() {
		for _, s := range []*nl.SocketHandle{l.make, l.remove} {
			if s != nil {
				s.Close()
			}
		}
		if l.query != nil {
			l.query.Close()
		}
		if l.control >= 0 {
			unix.Close(l.control)
		}
	})
}

// Create makes the pair: the host's end up and without IPv6 addresses, so that the host
// says nothing on the tenant's wire; the container's end down, with MAC, MTU and
// offloads set. A pair that is already so is left alone; any other link of these names
// is replaced. After an error nothing is left.
func (l *Links) Create(ctx context.Context, s Spec) error {
	if err := l.create(ctx, s); err != nil {
		return fmt.Errorf("link %s: %w", s.Name, err)
	}
	return nil
}

func (l *Links) create(ctx context.Context, s Spec) error {
	if !ours.MatchString(s.Name) {
		return errors.New("not a name of ours")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err := l.add(s)
	if errors.Is(err, unix.EEXIST) {
		if l.right(s) {
			err = nil
		} else if err = errors.Join(l.delete(s.Name), l.delete(s.Peer)); err == nil {
			err = l.add(s)
		}
	}
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	err = l.up(s.Name)
	if err == nil && !s.Offload {
		err = l.checksum(s.Peer)
	}
	if err != nil {
		return errors.Join(err, l.delete(s.Name))
	}
	return nil
}

// right reports whether the pair exists as wanted, with both ends still here.
func (l *Links) right(s Spec) bool {
	host, err := l.query.LinkByName(s.Name)
	if err != nil {
		return false
	}
	peer, err := l.query.LinkByName(s.Peer)
	if err != nil {
		return false
	}
	h, p := host.Attrs(), peer.Attrs()
	return host.Type() == "veth" && peer.Type() == "veth" &&
		h.ParentIndex == p.Index && p.ParentIndex == h.Index &&
		h.MTU == s.MTU && p.MTU == s.MTU && p.HardwareAddr.String() == s.MAC.String()
}

// Delete removes the pair by its host end, wherever the other end is. One that is not
// there is fine. The kernel takes some 17 ms for it.
func (l *Links) Delete(name string) error {
	if !ours.MatchString(name) {
		return fmt.Errorf("link %s: not a name of ours", name)
	}
	if err := l.delete(name); err != nil {
		return fmt.Errorf("link %s: delete: %w", name, err)
	}
	return nil
}

// Has tells whether a host end is there. It costs the same however many links there are.
func (l *Links) Has(name string) (bool, error) {
	link, err := l.query.LinkByName(name)
	switch {
	case errors.As(err, new(netlink.LinkNotFoundError)):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("link %s: %w", name, err)
	}
	return link.Type() == "veth", nil
}

// List is the names of all our host ends.
func (l *Links) List() ([]string, error) {
	links, err := l.query.LinkList()
	for try := 0; errors.Is(err, netlink.ErrDumpInterrupted) && try < 10; try++ {
		links, err = l.query.LinkList()
	}
	if err != nil {
		return nil, fmt.Errorf("link: list: %w", err)
	}
	var names []string
	for _, link := range links {
		if link.Type() == "veth" && ours.MatchString(link.Attrs().Name) {
			names = append(names, link.Attrs().Name)
		}
	}
	return names, nil
}
