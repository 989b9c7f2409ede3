package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/sirupsen/logrus"
)

// Settings are what the environment says, with every default in the code: the
// environment of a managed plugin survives an upgrade as it was, without what is new.
type Settings struct {
	Bridge     string
	Datapath   string
	VTEP       netip.Addr
	Store      []string    // etcd endpoints; none for the embedded etcd
	StoreTLS   *tls.Config // nil without certificates
	Listen     string      // HOST:PORT to serve other hosts, or empty
	Join       string      // token of a serving host, or empty
	Enterprise string
	Autocreate bool
	Scope      string
	MTU        int
	DNS        []netip.Addr // that DHCP tells
	// ConntrackLimit is how many connections each domain may have on this host; 0 is any.
	ConntrackLimit uint32
	LogLevel       logrus.Level

	// Problems are the settings that were refused. While there is one, nothing new is
	// attached; what is attached stays, and can be detached.
	Problems []error
	// Misplaced is those by which it is not known where the store is. Another store than the
	// right one would take the flows of everything that is attached away.
	Misplaced error
	// NoVTEP is whether the VTEP was refused. It is none then: another would be announced.
	NoVTEP bool
}

var bridgeName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$`)

// readSettings reads the environment through getenv. A bad value is a problem and its
// default is used; it never fails.
func readSettings(getenv func(string) string) Settings {
	s := Settings{}
	get := func(name, def string, check func(string) error) string {
		v := strings.TrimSpace(getenv(name))
		if v == "" {
			return def
		}
		if err := check(v); err != nil {
			s.Problems = append(s.Problems, fmt.Errorf("setting %s=%q: %w", name, v, err))
			return def
		}
		return v
	}
	s.Bridge = get("NUAGE_BRIDGE", "alubr0", func(v string) error {
		if !bridgeName.MatchString(v) {
			return errors.New("not an interface name (1 to 15 letters, digits, '_', '.', '-')")
		}
		return nil
	})
	s.Datapath = get("NUAGE_DATAPATH", "auto", oneOf("auto", "system", "netdev"))
	s.Scope = get("NUAGE_SCOPE", "local", oneOf("local", "global"))
	autocreate := get("NUAGE_AUTOCREATE", "true", func(v string) error {
		_, err := strconv.ParseBool(v)
		if err != nil {
			return errors.New("must be true or false")
		}
		return nil
	})
	s.Autocreate, _ = strconv.ParseBool(autocreate)
	s.Enterprise = get("NUAGE_ENTERPRISE", "", plainName)
	if v := get("NUAGE_MTU", "0", mtuValue); v != "0" {
		s.MTU, _ = strconv.Atoi(v)
	}
	get("NUAGE_DNS", "", func(v string) (err error) {
		s.DNS, err = addresses(v)
		return err
	})
	connections, _ := strconv.ParseUint(get("NUAGE_CONNTRACK_LIMIT", "65536", func(v string) error {
		if _, err := strconv.ParseUint(v, 10, 31); err != nil {
			return errors.New("must be a number of connections, or 0 for no limit")
		}
		return nil
	}), 10, 31)
	s.ConntrackLimit = uint32(connections)
	level := get("NUAGE_LOG_LEVEL", "info", oneOf("error", "warn", "info", "debug"))
	s.LogLevel, _ = logrus.ParseLevel(level)
	before := len(s.Problems)
	get("NUAGE_STORE", "", func(v string) (err error) {
		s.Store, err = endpoints(v)
		return err
	})
	ca, cert, key := get("NUAGE_STORE_CA", "", anything), get("NUAGE_STORE_CERT", "", anything), get("NUAGE_STORE_KEY", "", anything)
	var err error
	if s.StoreTLS, err = storeTLS(ca, cert, key); err != nil {
		s.Problems = append(s.Problems, err)
	}
	s.Listen = get("NUAGE_LISTEN", "", hostPort)
	s.Join = get("NUAGE_JOIN", "", plainName)
	if s.Listen != "" && (s.Join != "" || len(s.Store) > 0) || s.Join != "" && len(s.Store) > 0 {
		s.Problems = append(s.Problems, errors.New("setting NUAGE_LISTEN, NUAGE_JOIN, NUAGE_STORE: a host serves its own store, or joins another host, or uses an etcd cluster: set one of them"))
	}
	s.Misplaced = errors.Join(s.Problems[before:]...)
	get("NUAGE_API", "", func(string) error {
		return errors.New("this version does not serve the REST API over TCP; unset it")
	})
	s.VTEP, _ = vtepAddress("")
	get("NUAGE_VTEP", "", func(v string) (err error) {
		s.VTEP, err = vtepAddress(v)
		s.NoVTEP = err != nil
		return err
	})
	return s
}

// settingNames are all that readSettings reads.
func settingNames() (names []string) {
	readSettings(func(name string) string {
		names = append(names, name)
		return ""
	})
	return names
}

// Err is nil, or what keeps anything new from being attached, with the remedy.
func (s Settings) Err() error {
	if len(s.Problems) == 0 {
		return nil
	}
	return fmt.Errorf("%w (docker plugin disable -f nuage-plugin; docker plugin set nuage-plugin NAME=VALUE; docker plugin enable nuage-plugin)", errors.Join(s.Problems...))
}

func oneOf(values ...string) func(string) error {
	return func(v string) error {
		for _, w := range values {
			if v == w {
				return nil
			}
		}
		return fmt.Errorf("must be one of %s", strings.Join(values, ", "))
	}
}

func plainName(v string) error {
	for _, r := range v {
		if r < ' ' || r == 0x7f {
			return errors.New("must not contain control characters")
		}
	}
	return nil
}

func mtuValue(v string) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < 576 || n > 65535 {
		return errors.New("must be a number of bytes from 576 to 65535")
	}
	return nil
}

func addresses(v string) (all []netip.Addr, err error) {
	for text := range strings.SplitSeq(v, ",") {
		a, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil || !a.Is4() || a.IsUnspecified() || a.IsMulticast() {
			return nil, errors.New("must be a comma-separated list of IPv4 addresses")
		}
		all = append(all, a)
	}
	return all, nil
}

func endpoints(v string) (all []string, err error) {
	for e := range strings.SplitSeq(v, ",") {
		e = strings.TrimSpace(e)
		u, err := url.Parse(e)
		if err != nil || u.Host+u.Path == "" || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "unix" {
			return nil, errors.New("must be a comma-separated list of etcd endpoints, such as https://10.0.0.1:2379")
		}
		all = append(all, e)
	}
	return all, nil
}

func anything(string) error { return nil }

func hostPort(v string) error {
	host, port, err := net.SplitHostPort(v)
	if err != nil || host == "" {
		return errors.New("must be HOST:PORT, such as 10.0.0.1:2379: an address of this host that the others reach")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errors.New("the port must be a number from 1 to 65535")
	}
	return nil
}

// storeTLS is the client side of mutual TLS to the etcd cluster. The certificate is read for
// each connection, so that it can be renewed; the authority is the one of now.
func storeTLS(ca, cert, key string) (*tls.Config, error) {
	if ca == "" && cert == "" && key == "" {
		return nil, nil
	}
	if ca == "" || cert == "" || key == "" {
		return nil, errors.New("setting NUAGE_STORE_CA, NUAGE_STORE_CERT, NUAGE_STORE_KEY: all three are needed, or none")
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("setting NUAGE_STORE_CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("setting NUAGE_STORE_CA=%q: no certificate in it", ca)
	}
	load := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("setting NUAGE_STORE_CERT, NUAGE_STORE_KEY: %w", err)
		}
		return &pair, nil
	}
	if _, err := load(nil); err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: roots, GetClientCertificate: load, MinVersion: tls.VersionTLS12}, nil
}

// vtepAddress is the address of the underlay: v itself, the first IPv4 address of the
// interface v, or the source address of the default route if v is empty. A host without
// a default route has none, which is no error: one host alone needs none.
func vtepAddress(v string) (netip.Addr, error) {
	if v == "" {
		// Connecting a datagram socket asks the kernel for a route and sends nothing.
		c, err := net.Dial("udp4", "192.0.2.1:9")
		if err != nil {
			return netip.Addr{}, nil
		}
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
	}
	if a, err := netip.ParseAddr(v); err == nil {
		if !a.Is4() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
			return netip.Addr{}, errors.New("must be an IPv4 address of this host's underlay")
		}
		return a, nil
	}
	ifc, err := net.InterfaceByName(v)
	if err != nil {
		return netip.Addr{}, errors.New("neither an IPv4 address nor an interface of this host")
	}
	addrs, err := ifc.Addrs()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil {
			return netip.AddrFrom4([4]byte(n.IP.To4())), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("interface %s has no IPv4 address", v)
}
