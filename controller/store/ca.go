package store

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"nuage/controller/tenant"
)

const (
	// serverName is what the serving host's certificate is for, whatever its address is: a
	// client knows the host by the authority, and no host's certificate has it.
	serverName    = "store.nuage.internal"
	authorityLife = 25 * 365 * 24 * time.Hour
	// clockSkew is how far the clocks of two hosts may be apart.
	clockSkew = 5 * time.Minute

	certificatePEM, keyPEM = "CERTIFICATE", "PRIVATE KEY"

	authorityName = "ca.pem" // with its key
)

// certificateLife is how long the certificates are valid that are given out. A host asks
// for its next one when two thirds of that are over.
var certificateLife = 365 * 24 * time.Hour

// authority signs the certificates of the hosts that a serving host lets in.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pool        *x509.CertPool
	life        time.Duration // of what it signs

	mu     sync.Mutex
	server *tls.Certificate
}

// openAuthority reads the authority in dir, and makes one if there is none. One that is
// damaged is an error: a new one would lock all hosts out.
func openAuthority(dir string) (*authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	file := filepath.Join(dir, authorityName)
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		if text, err = newAuthority(); err == nil {
			err = writeFile(file, text)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	certificate, key, err := parsePair(text)
	if err == nil && !certificate.IsCA {
		err = errors.New("the certificate is no authority's")
	}
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %s: %w; restore it from a backup, or remove it and let all hosts join again", file, err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(certificate)
	return &authority{certificate: certificate, key: key, pool: pool, life: certificateLife}, nil
}

func newAuthority() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := certificateFor("nuage", authorityLife)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.MaxPathLenZero = true
	template.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return marshalPair(der, key)
}

func certificateFor(name string, life time.Duration) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)) // never fails
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-clockSkew),
		NotAfter:     now.Add(life),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

// provenKey reads a certificate request. Nothing but its key counts.
func provenKey(request []byte) (*x509.CertificateRequest, error) {
	csr, err := x509.ParseCertificateRequest(request)
	if err != nil {
		return nil, errors.New("the certificate request cannot be read")
	}
	if key, ok := csr.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("the certificate request's key is not an ECDSA key on P-256")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, errors.New("the certificate request is not signed by its key")
	}
	return csr, nil
}

// sign gives the host a certificate for the key of the request.
func (a *authority) sign(host string, generation uint64, csr *x509.CertificateRequest) ([]byte, error) {
	template := certificateFor(host, a.life)
	template.Subject.SerialNumber = strconv.FormatUint(generation, 10)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return x509.CreateCertificate(rand.Reader, template, a.certificate, csr.PublicKey, a.key)
}

// identity is whom a host's certificate names. Of a host that was let in again, or was
// evicted, the certificates of earlier generations count no more.
func identity(c *x509.Certificate) (host string, generation uint64, err error) {
	generation, err = strconv.ParseUint(c.Subject.SerialNumber, 10, 64)
	if err == nil {
		err = validateHost(c.Subject.CommonName)
	}
	if err != nil {
		return "", 0, errors.New("the certificate is no host's")
	}
	return c.Subject.CommonName, generation, nil
}

// validateHost decides whether a host can have the name.
func validateHost(name string) error {
	return tenant.Host{Meta: tenant.Meta{ID: name}, Name: name}.Validate()
}

// serverCertificate is the serving host's own, made anew in time; it is never stored.
func (a *authority) serverCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.server != nil && time.Now().Before(renewal(a.server.Leaf)) {
		return a.server, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := certificateFor(serverName, a.life)
	template.DNSNames = []string{serverName}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	// The authority goes with it, for those who join: they know only its hash.
	a.server = &tls.Certificate{Certificate: [][]byte{der, a.certificate.Raw}, PrivateKey: key, Leaf: leaf}
	return a.server, nil
}

// renewal is when the next certificate is due.
func renewal(c *x509.Certificate) time.Time {
	issued := c.NotBefore.Add(clockSkew)
	return issued.Add(c.NotAfter.Sub(issued) * 2 / 3)
}

// digest names a certificate, a key or a secret.
func digest(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

func marshalPair(certificate []byte, key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if certificate != nil {
		pem.Encode(&b, &pem.Block{Type: certificatePEM, Bytes: certificate})
	}
	pem.Encode(&b, &pem.Block{Type: keyPEM, Bytes: der})
	return b.Bytes(), nil
}

// parsePair reads a certificate and its key.
func parsePair(text []byte) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, errors.New("the key is not an ECDSA key")
	}
	return pair.Leaf, key, nil
}

// writeFile puts a secret in the place of what the file held, whole or not at all.
func writeFile(name string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
