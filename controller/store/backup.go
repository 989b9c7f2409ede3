package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"nuage/controller/tenant"
)

// backupFormat is the version of a backup's form, and of the layout of the keys that are in
// it: a backup of another is neither older nor newer state, but none.
const backupFormat = 1

// backedUp are what a backup has, in order: the objects, their index, and which of the hosts'
// certificates count. It has no signs of life, status, counters or questions, which their
// hosts tell anew, and no tokens, which are a way in.
var backedUp = []string{
	index,
	generationKey(""),
	root + "domains/",
	enterpriseKey(""),
	hostKey(""),
	macroKey(""),
	root + "networks/",
}

// A backup is lines of JSON: a head, the keys in order, and the digest of all lines before.
type backupHead struct {
	Format   int       `json:"nuageBackup"`
	Created  time.Time `json:"created"`
	Host     string    `json:"host"`
	Version  string    `json:"version"` // of the nuage that made it
	Revision int64     `json:"revision"`
	Keys     int       `json:"keys"`
	// Authority is the one that the hosts' certificates are of, with its key; empty if this
	// host has never served others.
	Authority string `json:"authority,omitempty"`
}

type backupPair struct {
	Key   []byte `json:"k"`
	Value []byte `json:"v"`
}

type backupEnd struct {
	SHA256 string `json:"sha256"`
}

type backup struct {
	backupHead
	pairs []backupPair
}

// Backup is all that the store has to be given back after the loss of its directory, as of
// one revision: see Restore. It is a secret: the key of the authority is in it. version is
// that of the caller. Where the store is elsewhere it is tenant.ErrConflict.
func (s *Store) Backup(ctx context.Context, version string) ([]byte, error) {
	if err := s.keeps("backup"); err != nil {
		return nil, err
	}
	ses, err := s.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer ses.release()
	ctx, cancel := ses.bound(ctx)
	defer cancel()
	b := backup{backupHead: backupHead{Format: backupFormat, Created: s.now(), Host: s.config.Host, Version: version}}
	for _, prefix := range backedUp {
		b.Revision, err = scan(ctx, ses.client, b.Revision, prefix, prefixEnd(prefix), func(kv *mvccpb.KeyValue) {
			b.pairs = append(b.pairs, backupPair{kv.Key, kv.Value})
		})
		if err != nil {
			return nil, s.unavailable(err)
		}
	}
	authority, err := os.ReadFile(s.authorityFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("backup: %w", err)
	}
	b.Keys, b.Authority = len(b.pairs), string(authority)
	return b.format()
}

// keeps refuses what only who keeps the state can do.
func (s *Store) keeps(what string) error {
	at := strings.Join(s.config.Endpoints, ", ")
	switch {
	case at == "":
		return nil
	case s.config.Compact:
		return tenant.Errorf(tenant.ErrConflict, "%s: the store is the etcd cluster at %s: use etcdctl snapshot save, and etcdutl snapshot restore", what, at)
	}
	return tenant.Errorf(tenant.ErrConflict, "%s: this host's store is at %s: run `nuagectl %s` there", what, at, what)
}

// authorityFile is where the authority is, if there is one.
func (s *Store) authorityFile() string { return filepath.Join(s.authorityDir(), authorityName) }

func (s *Store) authorityDir() string {
	if s.config.CADir != "" {
		return s.config.CADir
	}
	return filepath.Join(filepath.Dir(s.config.Dir), "ca")
}

func (b *backup) format() ([]byte, error) {
	var text bytes.Buffer
	lines := json.NewEncoder(&text)
	if err := lines.Encode(b.backupHead); err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	for _, p := range b.pairs {
		if err := lines.Encode(p); err != nil {
			return nil, fmt.Errorf("backup: %w", err)
		}
	}
	if err := lines.Encode(backupEnd{digest(text.Bytes())}); err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	return text.Bytes(), nil
}

// parseBackup refuses whatever is not a whole and unchanged backup of this format.
func parseBackup(text []byte) (b backup, err error) {
	bad := func(format string, args ...any) (backup, error) {
		return backup{}, tenant.Errorf(tenant.ErrInvalid, format, args...)
	}
	first, _, _ := bytes.Cut(text, []byte("\n"))
	if err := json.Unmarshal(first, &b.backupHead); err != nil || b.Format == 0 {
		return bad("this is not a backup that `nuagectl backup` has made")
	}
	if b.Format != backupFormat {
		return bad("the backup is of nuage %s and has format %d; this version has format %d: restore it with a version like that", b.Version, b.Format, backupFormat)
	}
	last := bytes.LastIndexByte(bytes.TrimSuffix(text, []byte("\n")), '\n') + 1
	var end backupEnd
	if err := json.Unmarshal(text[last:], &end); err != nil || end.SHA256 != digest(text[:last]) {
		return bad("the backup is damaged: it was cut or changed")
	}
	lines := json.NewDecoder(bytes.NewReader(text[len(first):last]))
	for before := ""; ; {
		var p backupPair
		err := lines.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || string(p.Key) <= before || backedUpBy(string(p.Key)) == "" {
			return bad("the backup is damaged: after the key %q", before)
		}
		before = string(p.Key)
		b.pairs = append(b.pairs, p)
	}
	if len(b.pairs) != b.Keys {
		return bad("the backup is damaged: it has %d keys instead of %d", len(b.pairs), b.Keys)
	}
	return b, nil
}

// backedUpBy is the prefix by which a key is in backups; empty if it is in none.
func backedUpBy(key string) string {
	for _, prefix := range backedUp {
		if strings.HasPrefix(key, prefix) {
			return prefix
		}
	}
	return ""
}
