package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ErrNamespace is a path at which there is no network namespace: the container has ended,
// or its mount cannot be seen by this process.
var ErrNamespace = errors.New("no network namespace")

// Inside is what the container's end of a pair is to be in the container.
type Inside struct {
	Name    string // the switch's end
	Peer    string // the container's end, while it is still here
	Netns   string // path of the container's network namespace
	Address netip.Prefix
	Gateway netip.Addr // of the default route; none if not valid
}

// Move puts the container's end of a pair that Create has made into the container's
// network namespace, under the first name of eth0, eth1, … that is free there, gives it
// its address and the default route, and brings it up, without IPv6 addresses. MAC, MTU
// and offloads go along. It returns the name.
//
// After an error the end may be in either namespace; Delete removes it from both. A path
// that is no namespace is ErrNamespace. The namespace is entered by a thread of its own
// that ends with that, so that no other work is ever done in it.
func (l *Links) Move(ctx context.Context, in Inside) (string, error) {
	name, err := l.move(ctx, in)
	if err != nil {
		return "", fmt.Errorf("link %s: into %s: %w", in.Peer, in.Netns, err)
	}
	return name, nil
}

func (l *Links) move(ctx context.Context, in Inside) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	ns, err := openNamespace(in.Netns)
	if err != nil {
		return "", err
	}
	defer ns.Close()
	there, err := handleIn(ns)
	if err != nil {
		return "", err
	}
	defer there.Close()
	err = send(l.make, unix.RTM_SETLINK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC),
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(in.Peer)), nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(ns.Fd()))))
	if err != nil {
		return "", fmt.Errorf("move: %w", err)
	}
	name, err := furnish(there, in)
	if err != nil {
		return "", err
	}
	return name, l.await(ctx, in.Name)
}

// await returns once the switch's end carries packets. The other end being up is not
// enough: the kernel tells this one by a work item of its own, and until that has run,
// which takes long on a busy host, it drops all that is sent to the container.
func (l *Links) await(ctx context.Context, name string) error {
	for {
		here, err := l.query.LinkByName(name)
		if err != nil {
			return err
		}
		if here.Attrs().OperState == netlink.OperUp {
			return nil
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s has no carrier: %w", name, ctx.Err())
		}
	}
}

// openNamespace opens the file of a network namespace, and nothing else: an ordinary file
// is there in its place when its mount is gone, or was never seen by this process.
func openNamespace(path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: the container has ended", ErrNamespace)
	} else if err != nil {
		return nil, err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		f.Close()
		return nil, err
	}
	if fs.Type != unix.NSFS_MAGIC {
		f.Close()
		return nil, fmt.Errorf("%w is mounted there for this process: either the container has ended, or the host's /run is not a shared mount (mount --make-shared /run, and start the plugin again)", ErrNamespace)
	}
	return f, nil
}

// handleIn opens netlink in a namespace. The thread that enters it is never used again: Go
// ends a thread whose goroutine has not unlocked it.
func handleIn(ns *os.File) (h *netlink.Handle, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err = netns.Set(netns.NsHandle(ns.Fd())); err != nil {
			err = fmt.Errorf("enter (which needs CAP_SYS_ADMIN): %w", err)
			return
		}
		if h, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return
		}
		if err = h.SetSocketTimeout(patience); err != nil {
			h.Close()
		}
	}()
	<-done
	return h, err
}

// furnish names, addresses and brings up what has come into the container.
func furnish(there *netlink.Handle, in Inside) (string, error) {
	end, err := there.LinkByName(in.Peer)
	if err != nil {
		return "", err
	}
	// The kernel puts the first free number for %d, so that nobody can come in between.
	if err := there.LinkSetName(end, "eth%d"); err != nil {
		return "", fmt.Errorf("name: %w", err)
	}
	if end, err = there.LinkByIndex(end.Attrs().Index); err != nil {
		return "", err
	}
	addr := &net.IPNet{IP: in.Address.Addr().AsSlice(), Mask: net.CIDRMask(in.Address.Bits(), 32)}
	if err := there.AddrAdd(end, &netlink.Addr{IPNet: addr}); err != nil {
		return "", fmt.Errorf("address %s: %w", in.Address, err)
	}
	if err := there.LinkSetIP6AddrGenMode(end, addrGenNone); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return "", fmt.Errorf("IPv6 addresses off: %w", err)
	}
	if err := there.LinkSetUp(end); err != nil {
		return "", fmt.Errorf("up: %w", err)
	}
	if !in.Gateway.IsValid() {
		return end.Attrs().Name, nil
	}
	err = there.RouteAdd(&netlink.Route{LinkIndex: end.Attrs().Index, Gw: in.Gateway.AsSlice()})
	if errors.Is(err, unix.EEXIST) {
		err = errors.New("the container has another already")
	}
	if err != nil {
		return "", fmt.Errorf("default route via %s: %w", in.Gateway, err)
	}
	return end.Attrs().Name, nil
}
