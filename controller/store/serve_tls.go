package store

import (
	"context"
	"errors"
	"net"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
)

// handshaken are the credentials of connections whose handshake the door has made.
type handshaken struct{}

// ServerHandshake tells gRPC who is there.
func (handshaken) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	e, ok := c.(*entered)
	if !ok {
		return nil, nil, errors.New("a connection that was not let in")
	}
	return c, credentials.TLSInfo{State: e.ConnectionState(),
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}, nil
}

// ClientHandshake is not what these are for.
func (handshaken) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("not a client's credentials")
}

// Info describes the protocol.
func (handshaken) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone returns the same: there is nothing in it.
func (handshaken) Clone() credentials.TransportCredentials { return handshaken{} }

// OverrideServerName is not for servers.
func (handshaken) OverrideServerName(string) error { return nil }

// isTransient tells errors of accepting that pass.
func isTransient(err error) bool {
	for _, e := range []error{unix.EMFILE, unix.ENFILE, unix.ECONNABORTED, unix.ENOBUFS, unix.ENOMEM, unix.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
