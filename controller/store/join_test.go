package store

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"nuage/controller/tenant"
)

func joinAs(t testing.TB, token, host, dir string) (Credentials, error) {
	t.Helper()
	return Join(context10(t), JoinConfig{Token: token, Host: host, Dir: dir, Log: quietLog()})
}

func TestJoin(t *testing.T) {
	t.Parallel()
	s, log := runServing(t, Config{})
	dir := filepath.Join(t.TempDir(), "host")
	token := newToken(t, s)
	c, err := joinAs(t, token, "h1", dir)
	if err != nil {
		t.Fatal(err)
	}
	if c.Host() != "h1" || len(c.Endpoints) != 1 {
		t.Errorf("%+v", c)
	}
	if _, err := client(t, c).Get(context10(t), root); err != nil {
		t.Error(err)
	}
	// Once joined, nobody is asked, whatever the token is.
	for _, token := range []string{token, "", "nonsense"} {
		again, err := joinAs(t, token, "h1", dir)
		if err != nil || again.pair.Load().Leaf.SerialNumber.Cmp(c.pair.Load().Leaf.SerialNumber) != 0 {
			t.Errorf("joining again with %.10q: %v", token, err)
		}
	}
	if _, err := joinAs(t, token, "h2", t.TempDir()); !errors.Is(err, tenant.ErrDenied) || !strings.Contains(err.Error(), "used already") {
		t.Errorf("a used token: %v", err)
	}
	until(t, "the refusal is logged", func() bool { return log.has("used already") && log.has("h2") })
	files, _ := filepath.Glob(dir + "/*")
	ca, _ := filepath.Glob(filepath.Dir(s.config.Dir) + "/ca/*")
	if len(files) != 1 || len(ca) != 1 {
		t.Errorf("%q %q", files, ca)
	}
	for _, f := range append(files, ca...) {
		if st, err := os.Stat(f); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, st.Mode(), err)
		}
		if st, err := os.Stat(filepath.Dir(f)); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", filepath.Dir(f), st.Mode(), err)
		}
	}
	if kept := dump(t, s); strings.Contains(kept, token[len(token)-20:]) {
		t.Error("the token lies in etcd")
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	s, log := runServing(t, Config{})
	mustParse := func() token {
		tk, err := parseToken(newToken(t, s))
		if err != nil {
			t.Fatal(err)
		}
		return tk
	}
	forged, otherCA, wrongPlace := mustParse(), mustParse(), mustParse()
	forged.Secret[3] ^= 1
	otherCA.Authority = strings.Repeat("ab", 32)
	wrongPlace.Endpoint = "127.0.0.1:1"
	short, err := s.CreateToken(context10(t), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2100 * time.Millisecond)
	if err := s.PutHost(context10(t), tenant.Host{Meta: tenant.Meta{ID: "serving"}, Name: "serving"}); err != nil {
		t.Fatal(err)
	}
	alive := far(t, s, "living")
	if err := alive.PutHost(context10(t), tenant.Host{Meta: tenant.Meta{ID: "living"}, Name: "living"}); err != nil {
		t.Fatal(err)
	}
	good := newToken(t, s)
	for _, c := range []struct {
		name, token, host string
		class             error
		text              string
	}{
		{"forged", forged.String(), "h1", tenant.ErrDenied, "forged"},
		{"expired", short, "h1", tenant.ErrDenied, "expired"},
		{"of another authority", otherCA.String(), "h1", tenant.ErrDenied, "certificate authority"},
		{"nobody there", wrongPlace.String(), "h1", tenant.ErrUnavailable, "refused"},
		{"cut", good[:40], "h1", tenant.ErrInvalid, "cut"},
		{"none", "", "h1", tenant.ErrInvalid, "neither"},
		{"the name of a living host", good, "living", tenant.ErrDenied, "alive"},
		{"the serving host's name", good, "serving", tenant.ErrDenied, "alive"},
		{"a bad name", good, "a/b", tenant.ErrInvalid, "slash"},
	} {
		dir := t.TempDir()
		if _, err := joinAs(t, c.token, c.host, dir); !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.name, err)
		}
		if _, ok, err := LoadCredentials(dir); ok || err != nil {
			t.Errorf("%s: credentials are there, %v", c.name, err)
		}
		if c.class == tenant.ErrDenied && c.token != otherCA.String() {
			until(t, c.name+" is logged", func() bool { return log.has(c.text) })
		}
	}
	// What was refused has not used the token up.
	if _, err := joinAs(t, good, "h1", t.TempDir()); err != nil {
		t.Error(err)
	}
	for _, ttl := range []time.Duration{-1, time.Millisecond, 1000 * time.Hour} {
		if _, err := s.CreateToken(context10(t), ttl); !errors.Is(err, tenant.ErrInvalid) {
			t.Errorf("a token for %s: %v", ttl, err)
		}
	}
	if _, err := alive.CreateToken(context10(t), 0); !errors.Is(err, tenant.ErrConflict) || !strings.Contains(err.Error(), alive.config.Endpoints[0]) {
		t.Errorf("a token elsewhere: %v", err)
	}
	lone, _ := start(t, Config{Dir: t.TempDir()})
	if _, err := lone.CreateToken(context10(t), 0); !errors.Is(err, tenant.ErrConflict) || !strings.Contains(err.Error(), "NUAGE_LISTEN") {
		t.Errorf("a token where nobody is served: %v", err)
	}
}

// TestJoinRepeated: a host whose answer was lost asks again with the same token and key.
func TestJoinRepeated(t *testing.T) {
	t.Parallel()
	s, _ := runServing(t, Config{})
	token, dir := newToken(t, s), t.TempDir()
	if _, err := joinAs(t, token, "h1", dir); err != nil {
		t.Fatal(err)
	}
	// As if the machine had gone down before the certificate was stored.
	text, err := os.ReadFile(filepath.Join(dir, credentialsFile))
	if err != nil {
		t.Fatal(err)
	}
	var st stored
	if err := json.Unmarshal(text, &st); err != nil {
		t.Fatal(err)
	}
	again := t.TempDir()
	if err := os.WriteFile(filepath.Join(again, joiningFile), []byte(st.Pair[strings.Index(st.Pair, "-----BEGIN "+keyPEM):]), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := joinAs(t, token, "h1", again); err != nil {
		t.Error(err)
	}
	if _, err := joinAs(t, token, "h1", t.TempDir()); !errors.Is(err, tenant.ErrDenied) {
		t.Errorf("the same with another key: %v", err)
	}
}

// TestJoinAnew: the certificates that a name had before count no more, once another host
// has joined by it or the host was evicted.
func TestJoinAnew(t *testing.T) {
	t.Parallel()
	s, _ := runServing(t, Config{})
	old := join(t, s, "h1")
	before := client(t, old)
	if _, err := before.Get(context10(t), root); err != nil {
		t.Fatal(err)
	}
	watch := before.Watch(context.Background(), root, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if w := <-watch; !w.Created {
		t.Fatal(w)
	}
	anew := client(t, join(t, s, "h1"))
	if _, err := anew.Get(context10(t), root); err != nil {
		t.Error(err)
	}
	for _, cl := range []*clientv3.Client{before, client(t, old)} {
		if _, err := cl.Get(context10(t), root); err == nil || !strings.Contains(err.Error(), "withdrawn") {
			t.Errorf("the old certificate: %v", err)
		}
	}
	if err := old.renew(context10(t)); err == nil || !strings.Contains(err.Error(), "withdrawn") {
		t.Errorf("renewing the old certificate: %v", err)
	}
	select {
	case w := <-watch:
		if err := w.Err(); err == nil || !strings.Contains(err.Error(), "withdrawn") {
			t.Errorf("the watch: %v, %v", w, err)
		}
	case <-time.After(2 * recheck):
		t.Error("the watch goes on")
	}
	if err := far(t, s, "h2").EvictHost(context10(t), "h1", true); !errors.Is(err, tenant.ErrDenied) || !strings.Contains(err.Error(), "only the host that serves") {
		t.Errorf("evicting from another host: %v", err)
	}
	if err := s.EvictHost(context10(t), "h1", true); err != nil {
		t.Fatal(err)
	}
	if _, err := anew.Get(context10(t), root); err == nil || !strings.Contains(err.Error(), "withdrawn") {
		t.Errorf("after the eviction: %v", err)
	}
}

// TestStrangers: who has no certificate of this authority that is valid now, gets nothing.
func TestStrangers(t *testing.T) {
	t.Parallel()
	s, log := runServing(t, Config{})
	addr, _ := s.Serving()
	mine := join(t, s, "h1")
	elsewhere, _ := runServing(t, Config{})
	theirs := join(t, elsewhere, "h1")
	authority := s.port.authority
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pair := func(f func(*x509.Certificate)) *tls.Certificate {
		template := certificateFor("h1", time.Hour)
		template.Subject.SerialNumber = "1"
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		f(template)
		der, err := x509.CreateCertificate(rand.Reader, template, authority.certificate, key.Public(), authority.key)
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	server, err := authority.serverCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	var asked sync.WaitGroup
	for _, c := range []struct {
		name string
		pair *tls.Certificate
		ok   bool
	}{
		{"the right one", mine.pair.Load(), true},
		{"made here as it should be", pair(func(*x509.Certificate) {}), true},
		{"none", &tls.Certificate{}, false},
		{"of another authority", theirs.pair.Load(), false},
		{"expired", pair(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}), false},
		{"not yet valid", pair(func(c *x509.Certificate) {
			c.NotBefore = time.Now().Add(time.Hour)
			c.NotAfter = c.NotBefore.Add(time.Hour)
		}), false},
		{"the serving host's own", server, false},
		{"without a generation", pair(func(c *x509.Certificate) { c.Subject.SerialNumber = "" }), false},
		{"of no host's name", pair(func(c *x509.Certificate) { c.Subject.CommonName = "a/b" }), false},
	} {
		config := mine.TLS.Clone()
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.pair, nil }
		cl := client(t, Credentials{Endpoints: mine.Endpoints, TLS: config})
		ctx := context10(t)
		if !c.ok { // the client goes on trying
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
		}
		asked.Go(func() {
			if _, err := cl.Get(ctx, root); (err == nil) != c.ok {
				t.Errorf("with a certificate %s: %v", c.name, err)
			}
		})
	}
	asked.Wait()
	if !log.has("TLS") {
		t.Errorf("nothing is logged: %q", log.lines)
	}
	silent := func(name string, c net.Conn, err error, say string) {
		if err != nil {
			return // not even a handshake
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(2 * time.Second))
		if _, err := c.Write([]byte(say)); err != nil {
			return
		}
		buf := make([]byte, 100)
		if n, err := c.Read(buf); n > 0 && !strings.HasPrefix(string(buf[:n]), "\x15\x03") { // a TLS alert
			t.Errorf("%s is answered %q, %v", name, buf[:n], err)
		}
	}
	raw, err := net.Dial("tcp", addr)
	silent("plain HTTP", raw, err, "GET / HTTP/1.0\r\n\r\n")
	raw, err = net.Dial("tcp", addr)
	silent("plain HTTP/2", raw, err, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	for _, proto := range []string{"", "h2", "http/1.1"} {
		config := &tls.Config{InsecureSkipVerify: true}
		if proto != "" {
			config.NextProtos = []string{proto}
		}
		c, err := tls.Dial("tcp", addr, config)
		if err != nil {
			continue
		}
		silent("TLS without a certificate, "+proto, c, nil, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	}
	if c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protoJoin}, MaxVersion: tls.VersionTLS12}); err == nil {
		c.Close()
		t.Error("TLS 1.2 is taken")
	}
}

// TestJoinRequests sends what no host would.
func TestJoinRequests(t *testing.T) {
	t.Parallel()
	s, _ := runServing(t, Config{})
	addr, _ := s.Serving()
	tk, err := parseToken(newToken(t, s))
	if err != nil {
		t.Fatal(err)
	}
	say := func(text string) (a admissionAnswer, err error) {
		c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protoJoin}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write([]byte(text)); err != nil {
			return a, err
		}
		return a, json.NewDecoder(c).Decode(&a)
	}
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	weak, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	request := func(k *ecdsa.PrivateKey) []byte {
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
			Subject: pkix.Name{CommonName: "admin", SerialNumber: "99"}, DNSNames: []string{serverName}}, k)
		if err != nil {
			t.Fatal(err)
		}
		return csr
	}
	broken := request(key)
	broken[len(broken)-3] ^= 1
	for name, q := range map[string]string{
		"nothing":            "{}",
		"no JSON":            "\x00\xff{{{",
		"too much":           `{"host":"` + strings.Repeat("x", maxMessage) + `"}`,
		"no request":         text(t, admissionRequest{Host: "h1", Secret: tk.Secret}),
		"a weak key":         text(t, admissionRequest{Host: "h1", Secret: tk.Secret, Request: request(weak)}),
		"a broken request":   text(t, admissionRequest{Host: "h1", Secret: tk.Secret, Request: broken}),
		"no secret":          text(t, admissionRequest{Host: "h1", Request: request(key)}),
		"another secret":     text(t, admissionRequest{Host: "h1", Secret: []byte("x"), Request: request(key)}),
		"no host":            text(t, admissionRequest{Secret: tk.Secret, Request: request(key)}),
		"control characters": text(t, admissionRequest{Host: "a\x1b[2J", Secret: tk.Secret, Request: request(key)}),
	} {
		if a, err := say(q); err == nil && (a.Error == "" || len(a.Certificate) > 0) {
			t.Errorf("%s: %+v", name, a)
		}
	}
	// The names in a request count for nothing.
	a, err := say(text(t, admissionRequest{Host: "h1", Secret: tk.Secret, Request: request(key)}))
	if err != nil || a.Error != "" {
		t.Fatal(a, err)
	}
	got, err := x509.ParseCertificate(a.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if got.Subject.CommonName != "h1" || got.Subject.SerialNumber != "1" || len(got.DNSNames) != 0 || got.IsCA || len(got.ExtKeyUsage) != 1 || got.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		t.Errorf("%+v", got.Subject)
	}
	// Who says nothing at all does not keep others from joining.
	for i := range maxHandshakes + maxFromOne {
		from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
		if i < maxFromOne/2 {
			from.LocalAddr = nil
		}
		c, err := from.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	join(t, s, "h2")
}

// TestRenewal: a certificate is replaced over itself while its holder works on.
func TestRenewal(t *testing.T) {
	old := certificateLife
	certificateLife = 3 * time.Second
	s, _ := runServing(t, Config{})
	certificateLife = old
	c := join(t, s, "h1")
	first := c.pair.Load().Leaf
	log := &logged{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { c.Keep(ctx, log.logger()); close(done) }()
	defer func() { cancel(); <-done }()
	f, _ := start(t, Config{Endpoints: c.Endpoints, TLS: c.TLS, Host: "h1"})
	time.Sleep(time.Until(first.NotAfter) + time.Second)
	last := c.pair.Load().Leaf
	if last.SerialNumber.Cmp(first.SerialNumber) == 0 || last.Subject.String() != first.Subject.String() || last.PublicKey.(*ecdsa.PublicKey).Equal(first.PublicKey) {
		t.Errorf("%s, then %s", first.Subject, last.Subject)
	}
	kept, ok, err := LoadCredentials(c.dir)
	if !ok || err != nil || kept.Host() != "h1" {
		t.Errorf("what is stored: %v, %v", ok, err)
	}
	if _, err := client(t, c).Get(context10(t), root); err != nil {
		t.Error(err)
	}
	waitReady(t, f)
	if err := f.PutHost(context10(t), tenant.Host{Meta: tenant.Meta{ID: "h1"}, Name: "h1"}); err != nil {
		t.Errorf("the store with the renewed certificate: %v", err)
	}
	if len(log.lines) > 0 {
		t.Errorf("logged: %q", log.lines)
	}
}

// TestAuthority: the authority outlives a restart, and one that is damaged is not replaced.
func TestAuthority(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "etcd")
	s, stop := serving(t, Config{Dir: dir})
	c := join(t, s, "h1")
	addr, _ := s.Serving()
	stop()
	s, stop = serving(t, Config{Dir: dir, Listen: addr})
	if _, err := client(t, c).Get(context10(t), root); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	stop()
	file := filepath.Join(filepath.Dir(dir), "ca", "ca.pem")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text[:len(text)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	damaged, err := run(t, Config{Dir: dir, Listen: addr})
	if err != nil {
		t.Errorf("the store itself: %v", err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for err = nil; (err == nil || !strings.Contains(err.Error(), file)) && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		_, err = damaged.Serving()
	}
	if !errors.Is(err, tenant.ErrUnavailable) || !strings.Contains(err.Error(), file) {
		t.Errorf("a damaged authority: %v", err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	waitServing(t, damaged)
	_ = s
}

// TestJoinMoved: a new token tells a joined host where the serving host is now.
func TestJoinMoved(t *testing.T) {
	t.Parallel()
	s, _ := serving(t, Config{})
	addr, _ := s.Serving()
	hole := newBlackHole(t, addr)
	token, err := parseToken(newToken(t, s))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	token.Endpoint = hole.addr
	c, err := joinAs(t, token.String(), "h1", dir)
	if err != nil || c.Endpoints[0] != "https://"+hole.addr {
		t.Fatal(c.Endpoints, err)
	}
	for range 2 {
		c, err = joinAs(t, newToken(t, s), "h1", dir)
		if err != nil || c.Endpoints[0] != "https://"+addr {
			t.Fatal(c.Endpoints, err)
		}
	}
	if c, ok, err := LoadCredentials(dir); !ok || err != nil || c.Endpoints[0] != "https://"+addr {
		t.Error(c.Endpoints, err)
	}
}
