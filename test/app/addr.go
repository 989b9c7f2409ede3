package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// addr prints a line for each interface but lo, "eth0 10.0.0.2/24 mac 02:… mtu 1450", and
// one for each IPv4 default route, "default via 10.0.0.1 dev eth0".
func addr(args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("want no argument")
	}
	ifaces, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range ifaces {
		if i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			return err
		}
		fmt.Print(i.Name)
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
				fmt.Print(" ", p)
			}
		}
		fmt.Printf(" mac %s mtu %d\n", i.HardwareAddr, i.MTU)
	}
	return defaultRoutes()
}

func defaultRoutes() error {
	f, err := os.Open("/proc/net/route")
	if err != nil {
		return err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		// Iface Destination Gateway Flags RefCnt Use Metric Mask …, little-endian hexadecimal
		c := strings.Fields(s.Text())
		if len(c) < 8 || c[1] != "00000000" || c[7] != "00000000" {
			continue
		}
		gw, err := hex.DecodeString(c[2])
		if err != nil || len(gw) != 4 {
			continue
		}
		slices.Reverse(gw)
		fmt.Printf("default via %s dev %s\n", netip.AddrFrom4([4]byte(gw)), c[0])
	}
	return nil
}
