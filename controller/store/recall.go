package store

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"nuage/controller/tenant"
)

// recall finds the domains that this host was in when it last ran, for the first session:
// those that it has kept, those of its networks, and those that it told others of last.
// The last two are enough for a host that has lost its directory.
func (s *Store) recall(ses *session) error {
	if s.recalled {
		return nil
	}
	r := s.reader(ses.ctx, ses)
	if err := r.scan(s.networks.from, s.networks.to); err != nil {
		return err
	}
	status, err := r.status(s.config.Host)
	if err != nil {
		return err
	}
	domains := s.keptDomains()
	for _, id := range status.Domains {
		domains[id] = true
	}
	for _, n := range r.st.Networks {
		domains[n.DomainID] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range domains {
		if tenant.ValidateID(id) == nil {
			s.domains[id] = newDomain(id)
		}
	}
	s.recalled = true
	return nil
}

func (s *Store) domainsFile() string { return filepath.Join(s.config.Dir, "domains") }

// keepDomains keeps which domains are followed, for a process that comes after a crash: no
// vport is bound in a domain before it is kept. A crash of the machine ends the vports as
// well, so it need not be on the disk. Called with Store.mu held.
func (s *Store) keepDomains() error {
	if s.config.Dir == "" {
		return nil
	}
	b, err := json.Marshal(slices.Sorted(maps.Keys(s.domains)))
	if err == nil {
		err = os.WriteFile(s.domainsFile()+".new", b, 0o600)
	}
	if err == nil {
		err = os.Rename(s.domainsFile()+".new", s.domainsFile())
	}
	return err
}

func (s *Store) keptDomains() map[string]bool {
	domains := map[string]bool{}
	if s.config.Dir == "" {
		return domains
	}
	var ids []string
	b, err := os.ReadFile(s.domainsFile())
	if err == nil {
		err = json.Unmarshal(b, &ids)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.WithError(err).Warn("which domains this host was in cannot be read")
	}
	for _, id := range ids {
		domains[id] = true
	}
	return domains
}
