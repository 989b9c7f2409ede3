package store

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"nuage/controller/tenant"
)

// What hosts cannot read lies outside of root:
//
//	tokens/HASH      a token that was given out, by the hash of its secret
//	generations/HOST which of the host's certificates count: see identity
const secrets = "/nuage/secrets/v1/"

func tokenKey(hash string) string      { return secrets + "tokens/" + hash }
func generationKey(host string) string { return secrets + "generations/" + host }

const (
	tokenPrefix = "nuage1."
	// DefaultTokenTTL and MaxTokenTTL are how long a token can be used.
	DefaultTokenTTL = time.Hour
	MaxTokenTTL     = 30 * 24 * time.Hour
	// A token is remembered for this long after its end, to say what is wrong with it.
	tokenMemory = 24 * time.Hour
)

// token is what a host needs to be let in. It is a secret until it is used or expired.
type token struct {
	Endpoint  string    `json:"e"`
	Authority string    `json:"a"` // digest of its certificate
	Secret    []byte    `json:"s"`
	Expires   time.Time `json:"x"`
}

func (t token) String() string {
	b, _ := json.Marshal(t) // never fails
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
}

func parseToken(s string) (token, error) {
	var t token
	text, ok := strings.CutPrefix(strings.TrimSpace(s), tokenPrefix)
	b, err := base64.RawURLEncoding.DecodeString(text)
	if ok && err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err == nil {
		_, _, err = net.SplitHostPort(t.Endpoint)
	}
	if hash, herr := hex.DecodeString(t.Authority); !ok || err != nil || herr != nil || len(hash) != 32 || len(t.Secret) == 0 {
		return token{}, tenant.Errorf(tenant.ErrInvalid, "this is not a join token; it may have been cut: copy all that `nuagectl token create` prints")
	}
	return t, nil
}

// ticket is what the store keeps of a token.
type ticket struct {
	Expires time.Time `json:"expires"`
	// Host, Key and Generation are set once it is used. Who used it may repeat a call whose
	// answer was lost, with the same key.
	Host       string `json:"host,omitempty"`
	Key        string `json:"key,omitempty"`
	Generation uint64 `json:"generation,omitempty"`
}

// CreateToken makes a token by which one host can join within ttl (0: DefaultTokenTTL). Only
// a host that serves others can: elsewhere it is a tenant.ErrConflict that says where.
func (s *Store) CreateToken(ctx context.Context, ttl time.Duration) (string, error) {
	switch {
	case len(s.config.Endpoints) > 0:
		return "", tenant.Errorf(tenant.ErrConflict, "token: this host's store is at %s: run `nuagectl token create` there", strings.Join(s.config.Endpoints, ", "))
	case s.config.Listen == "":
		return "", tenant.Errorf(tenant.ErrConflict, "token: this host serves no others; set NUAGE_LISTEN=ADDRESS:PORT here, or run `nuagectl token create` on the host that serves")
	case ttl == 0:
		ttl = DefaultTokenTTL
	case ttl < time.Second || ttl > MaxTokenTTL:
		return "", tenant.Errorf(tenant.ErrInvalid, "token: a life of %s is not between 1s and %s", ttl, MaxTokenTTL)
	}
	addr, err := s.Serving()
	if err != nil {
		return "", err
	}
	endpoint, err := reachable(addr)
	if err != nil {
		return "", err
	}
	ses, err := s.acquire(ctx)
	if err != nil {
		return "", err
	}
	defer ses.release()
	ctx, cancel := ses.bound(ctx)
	defer cancel()
	t := token{Endpoint: endpoint, Authority: s.port.authorityDigest(), Secret: make([]byte, 32), Expires: s.now().Add(ttl).Truncate(time.Second)}
	rand.Read(t.Secret) // never fails
	value, err := json.Marshal(ticket{Expires: t.Expires})
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	lease, err := ses.client.Grant(ctx, int64((ttl + tokenMemory).Seconds()))
	if err == nil {
		_, err = ses.client.Put(ctx, tokenKey(digest(t.Secret)), string(value), clientv3.WithLease(lease.ID))
	}
	if err != nil {
		return "", s.unavailable(err)
	}
	s.log.WithField("expires", t.Expires).Info("a join token was made")
	return t.String(), nil
}

// reachable is how other hosts call an address that is listened on. Of an address that
// means all of this host's it is the one by which this host reaches others.
func reachable(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		return addr, nil
	}
	for _, far := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} { // nothing is sent there
		if c, err := net.Dial("udp", far); err == nil {
			defer c.Close()
			host, _, err := net.SplitHostPort(c.LocalAddr().String())
			return net.JoinHostPort(host, port), err
		}
	}
	return "", tenant.Errorf(tenant.ErrConflict, "token: this host has no route to others, so its address is not known; set NUAGE_LISTEN=ADDRESS:PORT with an address")
}

var (
	errTokenUnknown = errors.New("the token is not known here: it is forged, or has expired long ago")
	errTokenExpired = errors.New("the token has expired")
	errTokenUsed    = errors.New("the token has been used already")
	// errAgain is what the token is not to blame for.
	errAgain = errors.New("try again")
)

// redeem uses a token up for a host and the digest of its key, and returns the generation
// of the host's certificate. All certificates that the name had before count no more. own
// tells that the name is the serving host's.
func redeem(ctx context.Context, client *clientv3.Client, now time.Time, secret []byte, host, key string, own bool) (uint64, error) {
	at := tokenKey(digest(secret))
	resp, err := client.Txn(ctx).Then(clientv3.OpGet(at), clientv3.OpGet(generationKey(host)), clientv3.OpGet(aliveKey(host), clientv3.WithCountOnly())).Commit()
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errAgain, err)
	}
	tickets, generations := resp.Responses[0].GetResponseRange(), resp.Responses[1].GetResponseRange()
	if len(tickets.Kvs) == 0 {
		return 0, errTokenUnknown
	}
	var t ticket
	if err := json.Unmarshal(tickets.Kvs[0].Value, &t); err != nil {
		return 0, fmt.Errorf("token: %w", err)
	}
	switch {
	case now.After(t.Expires):
		return 0, errTokenExpired
	case t.Host == host && t.Key == key:
		return t.Generation, nil
	case t.Host != "":
		return 0, errTokenUsed
	case own || resp.Responses[2].GetResponseRange().Count > 0:
		return 0, fmt.Errorf("host %s is there and alive: give this one another name, or stop that one", host)
	}
	before, revision := uint64(0), int64(0)
	if len(generations.Kvs) > 0 {
		revision = generations.Kvs[0].ModRevision
		if err := json.Unmarshal(generations.Kvs[0].Value, &before); err != nil {
			return 0, fmt.Errorf("generation of host %s: %w", host, err)
		}
	}
	t.Host, t.Key, t.Generation = host, key, before+1
	value, err := json.Marshal(t)
	if err != nil {
		return 0, err
	}
	done, err := client.Txn(ctx).If(
		clientv3.Compare(clientv3.ModRevision(at), "=", tickets.Kvs[0].ModRevision),
		clientv3.Compare(clientv3.ModRevision(generationKey(host)), "=", revision),
		clientv3.Compare(clientv3.CreateRevision(aliveKey(host)), "=", 0),
	).Then(
		clientv3.OpPut(at, string(value), clientv3.WithIgnoreLease()),
		clientv3.OpPut(generationKey(host), fmt.Sprint(t.Generation)),
	).Commit()
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: %w", errAgain, err)
	case !done.Succeeded:
		return 0, fmt.Errorf("another host joins at the same moment: %w", errAgain)
	}
	return t.Generation, nil
}

// withdraw makes the certificates void that a host has got by a token, if it has. Only the
// host that serves can: elsewhere it is tenant.ErrDenied.
func (s *Store) withdraw(ctx context.Context, host string) error {
	ses, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	defer ses.release()
	ctx, cancel := ses.bound(ctx)
	defer cancel()
	for range maxAttempts {
		resp, err := ses.client.Get(ctx, generationKey(host))
		if err = s.refused(err); errors.Is(err, tenant.ErrDenied) {
			return tenant.Errorf(tenant.ErrDenied, "only the host that serves can evict: run `nuagectl delete host` at %s", strings.Join(s.config.Endpoints, ", "))
		}
		if err != nil || len(resp.Kvs) == 0 {
			return err
		}
		generation := uint64(0)
		if err := json.Unmarshal(resp.Kvs[0].Value, &generation); err != nil {
			return fmt.Errorf("generation: %w", err)
		}
		done, err := ses.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(generationKey(host)), "=", resp.Kvs[0].ModRevision)).
			Then(clientv3.OpPut(generationKey(host), fmt.Sprint(generation+1))).Commit()
		if err != nil {
			return s.unavailable(err)
		}
		if done.Succeeded {
			return nil
		}
	}
	return tenant.Errorf(tenant.ErrUnavailable, "it joins again and again")
}

// authorityDigest is what a token knows the authority by.
func (p *port) authorityDigest() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.authority == nil {
		return ""
	}
	return digest(p.authority.certificate.Raw)
}
