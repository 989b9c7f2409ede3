package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sirupsen/logrus"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// maxMessage bounds what is read before a host is let in.
const maxMessage = 16 << 10

// admissionRequest asks for a certificate: with a token's secret, or over a connection
// with a certificate for the next one of the same host.
type admissionRequest struct {
	Host    string `json:"host,omitempty"`
	Secret  []byte `json:"secret,omitempty"`
	Request []byte `json:"request"` // the proof of the key, as a PKCS #10 request
}

type admissionAnswer struct {
	Certificate []byte `json:"certificate,omitempty"`
	Error       string `json:"error,omitempty"`
	Again       bool   `json:"again,omitempty"` // the same request may succeed later
}

// readMessage reads one JSON value of bounded size.
func readMessage(r io.Reader, v any) error {
	return json.NewDecoder(io.LimitReader(r, maxMessage)).Decode(v)
}

// admission lets hosts join.
type admission struct {
	authority *authority
	client    *clientv3.Client
	gate      *gate
	host      string // the serving host's own name
	now       func() time.Time
}

// serve answers one request. It returns why the host was refused.
func (a *admission) serve(ctx context.Context, c *tls.Conn, log logrus.FieldLogger) error {
	var q admissionRequest
	if err := readMessage(c, &q); err != nil {
		return fmt.Errorf("join: the request cannot be read: %w", err)
	}
	host, certificate, err := a.admit(ctx, c.ConnectionState().PeerCertificates, q)
	answer := admissionAnswer{Certificate: certificate}
	if err != nil {
		answer = admissionAnswer{Error: err.Error(), Again: errors.Is(err, errAgain)}
	} else {
		log.WithField("host", host).Info("a certificate was given out")
	}
	if werr := json.NewEncoder(c).Encode(answer); werr != nil && err == nil {
		err = werr
	}
	if err != nil {
		return fmt.Errorf("join as %q: %w", host, err)
	}
	return nil
}

func (a *admission) admit(ctx context.Context, chain []*x509.Certificate, q admissionRequest) (host string, certificate []byte, err error) {
	csr, err := provenKey(q.Request)
	if err != nil {
		return q.Host, nil, err
	}
	generation := uint64(0)
	if len(chain) > 0 {
		if host, err = a.gate.holder(ctx, chain[0]); err == nil {
			_, generation, err = identity(chain[0])
		}
	} else if host, err = q.Host, validateHost(q.Host); err == nil {
		generation, err = redeem(ctx, a.client, a.now(), q.Secret, host, digest(csr.RawSubjectPublicKeyInfo), host == a.host)
	}
	if err == nil {
		certificate, err = a.authority.sign(host, generation, csr)
	}
	return host, certificate, err
}
