package store

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"nuage/controller/tenant"
)

const (
	credentialsFile = "host.json"
	// The key that a host joins with is kept until it has joined, so that a call whose
	// answer was lost can be repeated.
	joiningFile = "joining.pem"
	joinTimeout = 10 * time.Second
)

// JoinConfig is how a host joins.
type JoinConfig struct {
	// Token is what `nuagectl token create` has printed on the host that serves.
	Token string
	// Host is this host's name.
	Host string
	// Dir is where the certificate is kept; made with mode 0700 if missing.
	Dir string
	Log logrus.FieldLogger
}

// Credentials are what a host connects to the host that serves with. TLS uses the newest
// certificate for each connection, so that a renewal needs no restart.
type Credentials struct {
	Endpoints []string
	TLS       *tls.Config
	// TokenRefused is why another token than that of the certificate was of no use: what to
	// tell if the certificate is of none either.
	TokenRefused error

	dir  string
	pair *atomic.Pointer[tls.Certificate]
	// authority and kept are as stored.
	authority *x509.Certificate
	kept      stored
}

// stored is the form of Credentials in the directory, one file, so that it is never half.
type stored struct {
	Endpoints []string `json:"endpoints"`
	Authority string   `json:"authority"` // PEM
	Pair      string   `json:"pair"`      // PEM, certificate and key
	Token     string   `json:"token"`     // the hash of the token that it was got with
}

// Join gives a host its certificate. With a valid one stored, and the token that it was got
// with or none, it asks nobody: a used token in the settings of a joined host is no error.
// Another token of the same fleet is tried, since that is how an evicted host comes back; if
// it is refused, it tells all the same where the serving host is now. An error is
// tenant.ErrUnavailable if the serving host cannot be reached, and may be tried again;
// tenant.ErrDenied if it refuses; tenant.ErrInvalid if there is no usable token.
func Join(ctx context.Context, c JoinConfig) (Credentials, error) {
	if c.Log == nil {
		c.Log = logrus.StandardLogger()
	}
	if err := validateHost(c.Host); err != nil {
		return Credentials{}, fmt.Errorf("join: %w", err)
	}
	have, ok, stored := LoadCredentials(c.Dir)
	if ok && have.Host() != c.Host {
		ok, stored = false, tenant.Errorf(tenant.ErrInvalid, "the stored certificate is host %s's, but this host is called %s", have.Host(), c.Host)
	}
	if ok && (c.Token == "" || have.kept.Token == digest([]byte(c.Token))) {
		return have, nil
	}
	if ok {
		// Another token: the way back for a host that was evicted, whose certificate still
		// looks valid from here.
		got, err := have.rejoin(ctx, c)
		if err == nil {
			c.Log.WithField("endpoint", got.Endpoints[0]).Info("joined anew by another token")
			return got, nil
		}
		c.Log.WithError(err).Warn("the token does not let this host in again; its certificate is used")
		have = have.follow(c.Token, c.Log)
		have.TokenRefused = err
		return have, nil
	}
	if c.Token == "" {
		if stored == nil {
			stored = tenant.Errorf(tenant.ErrInvalid, "there is neither a certificate nor a token")
		}
		return Credentials{}, fmt.Errorf("join: %w", stored)
	}
	t, err := parseToken(c.Token)
	if err != nil {
		return Credentials{}, fmt.Errorf("join: %w", err)
	}
	if stored != nil {
		c.Log.WithError(stored).Warn("the stored certificate cannot be used; joining anew")
	}
	got, err := joinWith(ctx, c, t)
	if err != nil {
		return Credentials{}, fmt.Errorf("join %s: %w", t.Endpoint, err)
	}
	c.Log.WithFields(logrus.Fields{"endpoint": t.Endpoint, "until": got.pair.Load().Leaf.NotAfter}).Info("joined")
	return got, nil
}

func joinWith(ctx context.Context, c JoinConfig, t token) (Credentials, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return Credentials{}, err
	}
	key, err := joiningKey(filepath.Join(c.Dir, joiningFile))
	if err != nil {
		return Credentials{}, err
	}
	var authority *x509.Certificate
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protoJoin}, ServerName: serverName,
		// The token knows only the authority's hash, so the check is ours.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) (err error) {
			authority, err = verifyByDigest(state.PeerCertificates, t.Authority)
			return err
		},
	}
	answer, err := ask(ctx, t.Endpoint, config, key, admissionRequest{Host: c.Host, Secret: t.Secret})
	if err != nil {
		return Credentials{}, err
	}
	got, err := accept(c.Dir, stored{Endpoints: []string{t.Endpoint}, Token: digest([]byte(c.Token))}, authority, answer, key, c.Host)
	if err == nil {
		err = os.Remove(filepath.Join(c.Dir, joiningFile))
	}
	return got, err
}

// verifyByDigest checks the serving host's certificate against an authority of which only
// the hash is known.
func verifyByDigest(chain []*x509.Certificate, want string) (*x509.Certificate, error) {
	for _, c := range chain {
		if digest(c.Raw) != want {
			continue
		}
		pool := x509.NewCertPool()
		pool.AddCert(c)
		_, err := chain[0].Verify(x509.VerifyOptions{Roots: pool, DNSName: serverName})
		return c, err
	}
	return nil, errAuthority
}

var errAuthority = tenant.Errorf(tenant.ErrDenied, "what answers is not the host that made the token: its certificate authority is another")

// joiningKey is the key in the file, or a new one that it then holds.
func joiningKey(file string) (*ecdsa.PrivateKey, error) {
	if text, err := os.ReadFile(file); err == nil {
		if block, _ := pem.Decode(text); block != nil {
			if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
				if key, ok := key.(*ecdsa.PrivateKey); ok {
					return key, nil
				}
			}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	text, err := marshalPair(nil, key)
	if err != nil {
		return nil, err
	}
	return key, writeFile(file, text)
}

// ask sends a request with the proof of the key and returns the certificate.
func ask(ctx context.Context, endpoint string, config *tls.Config, key *ecdsa.PrivateKey, q admissionRequest) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	var err error
	if q.Request, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key); err != nil {
		return nil, err
	}
	c, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", endpoint)
	if err != nil {
		if errors.Is(err, tenant.ErrDenied) {
			return nil, err
		}
		return nil, tenant.Errorf(tenant.ErrUnavailable, "%v", err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Now()) })()
	if c.(*tls.Conn).ConnectionState().NegotiatedProtocol != protoJoin {
		return nil, tenant.Errorf(tenant.ErrUnavailable, "it does not let hosts join")
	}
	var a admissionAnswer
	if err := json.NewEncoder(c).Encode(q); err != nil {
		return nil, tenant.Errorf(tenant.ErrUnavailable, "%v", err)
	}
	if err := readMessage(c, &a); err != nil {
		return nil, tenant.Errorf(tenant.ErrUnavailable, "%v", err)
	}
	switch {
	case a.Error != "" && a.Again:
		return nil, tenant.Errorf(tenant.ErrUnavailable, "%s", a.Error)
	case a.Error != "":
		return nil, tenant.Errorf(tenant.ErrDenied, "%s", a.Error)
	}
	return a.Certificate, nil
}

// accept checks a certificate that was given out and stores it.
func accept(dir string, s stored, authority *x509.Certificate, certificate []byte, key *ecdsa.PrivateKey, host string) (Credentials, error) {
	text, err := marshalPair(certificate, key)
	if err != nil {
		return Credentials{}, err
	}
	s.Authority = string(pem.EncodeToMemory(&pem.Block{Type: certificatePEM, Bytes: authority.Raw}))
	s.Pair = string(text)
	got, err := s.credentials(dir)
	if err == nil && got.Host() != host {
		err = tenant.Errorf(tenant.ErrDenied, "the certificate that was given out is host %s's", got.Host())
	}
	if err == nil {
		err = s.write(dir)
	}
	return got, err
}

func (s stored) write(dir string) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, credentialsFile), append(text, '\n'))
}

// LoadCredentials reads what Join has stored; ok is false if there is nothing, or nothing
// that is valid now, and then err says what is wrong with it.
func LoadCredentials(dir string) (c Credentials, ok bool, err error) {
	text, err := os.ReadFile(filepath.Join(dir, credentialsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Credentials{}, false, nil
	}
	var s stored
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err == nil {
		c, err = s.credentials(dir)
	}
	if err != nil {
		return Credentials{}, false, fmt.Errorf("certificate in %s: %w", dir, err)
	}
	return c, true, nil
}

func (s stored) credentials(dir string) (Credentials, error) {
	leaf, key, err := parsePair([]byte(s.Pair))
	if err != nil {
		return Credentials{}, err
	}
	block, _ := pem.Decode([]byte(s.Authority))
	if block == nil {
		return Credentials{}, errors.New("the authority is missing")
	}
	authority, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return Credentials{}, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(authority)
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return Credentials{}, tenant.Errorf(tenant.ErrInvalid, "%v; join again with a new token", err)
	}
	if _, _, err := identity(leaf); err != nil {
		return Credentials{}, err
	}
	if len(s.Endpoints) == 0 {
		return Credentials{}, errors.New("the endpoint is missing")
	}
	c := Credentials{dir: dir, authority: authority, kept: s, pair: &atomic.Pointer[tls.Certificate]{}}
	c.pair.Store(&tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf})
	for _, e := range s.Endpoints {
		c.Endpoints = append(c.Endpoints, "https://"+e)
	}
	c.TLS = &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: serverName,
		// gRPC would check for the name in the endpoint; the check is ours.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, DNSName: serverName})
			return err
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.pair.Load(), nil },
	}
	return c, nil
}

// Host is the name in the certificate.
func (c Credentials) Host() string {
	host, _, _ := identity(c.pair.Load().Leaf) // checked when it was read
	return host
}

// Keep renews the certificate in time, until ctx ends. Every connection made after a
// renewal uses the new one.
func (c Credentials) Keep(ctx context.Context, log logrus.FieldLogger) {
	for {
		leaf := c.pair.Load().Leaf
		wait := time.Until(renewal(leaf))
		if wait <= 0 {
			err := c.renew(ctx)
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				log.WithField("until", c.pair.Load().Leaf.NotAfter).Info("the host's certificate was renewed")
				continue
			}
			log.WithError(err).WithField("until", leaf.NotAfter).Warn("the host's certificate cannot be renewed; trying again")
			wait = max(min(time.Until(leaf.NotAfter)/20, time.Hour), time.Second)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(wait, time.Hour)): // a clock may be set
		}
	}
}

func (c Credentials) renew(ctx context.Context) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	config := c.TLS.Clone()
	config.NextProtos = []string{protoJoin}
	var answer []byte
	for _, endpoint := range c.kept.Endpoints {
		if answer, err = ask(ctx, endpoint, config, key, admissionRequest{}); err == nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("renewal: %w", err)
	}
	next, err := accept(c.dir, c.kept, c.authority, answer, key, c.Host())
	if err != nil {
		return fmt.Errorf("renewal: %w", err)
	}
	c.pair.Store(next.pair.Load())
	return nil
}
