package vsd

import (
	"net/http"
	"time"

	"nuage/controller/tenant"
)

const restorePath = "/nuage/v1/restore"

// Restored is the answer to a restore: what is as in the backup now, and what came after the
// backup and is gone, by kind.
type Restored struct {
	DryRun   bool                `json:"dryRun"`
	Created  time.Time           `json:"created"` // of the backup, as are host and version
	Host     string              `json:"host"`
	Version  string              `json:"version"`
	Revision int64               `json:"revision,omitempty"` // of the state now
	Restored map[tenant.Kind]int `json:"restored"`
	Removed  map[tenant.Kind]int `json:"removed"`
}

func (a *api) serveBackup(w http.ResponseWriter, r *http.Request) {
	text, err := a.backup(r)
	if err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	_, _ = w.Write(text)
}

func (a *api) backup(r *http.Request) ([]byte, error) {
	if _, err := parameters(r); err != nil {
		return nil, err
	}
	if err := a.ready(); err != nil {
		return nil, err
	}
	return a.Store.Backup(r.Context(), a.Version)
}

func (a *api) serveRestore(w http.ResponseWriter, r *http.Request) {
	done, err := a.restore(r)
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, done)
}

func (a *api) restore(r *http.Request) (Restored, error) {
	dryRun, err := flag(r, "dryRun")
	if err != nil {
		return Restored{}, err
	}
	text, err := readAll(r)
	if err != nil {
		return Restored{}, err
	}
	if err := a.ready(); err != nil {
		return Restored{}, err
	}
	a.applying.Lock()
	defer a.applying.Unlock()
	done, err := a.Store.Restore(r.Context(), text, dryRun)
	if err != nil {
		return Restored{}, err
	}
	return Restored{DryRun: dryRun, Created: done.Created, Host: done.Host, Version: done.Version, Revision: done.Revision,
		Restored: done.Put, Removed: done.Removed}, nil
}
