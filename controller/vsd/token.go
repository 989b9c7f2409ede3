package vsd

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"nuage/controller/tenant"
)

// Token is what lets one other host join, as POST /nuage/v1/tokens gives it.
type Token struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

const defaultTTL = time.Hour

func (a *api) serveTokens(w http.ResponseWriter, r *http.Request) {
	made, err := a.makeToken(r)
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusCreated, made)
}

// makeToken reads {"ttl": "1h"}; no body and no ttl are the default.
func (a *api) makeToken(r *http.Request) (made Token, err error) {
	if _, err := parameters(r); err != nil {
		return made, err
	}
	text, err := readAll(r)
	if err != nil {
		return made, err
	}
	ttl := defaultTTL
	if len(text) > 0 {
		var asked struct{ TTL string }
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&asked); err != nil {
			return made, tenant.Errorf(tenant.ErrInvalid, "the request is not JSON such as {\"ttl\": \"1h\"}: %v", err)
		}
		if asked.TTL != "" {
			if ttl, err = time.ParseDuration(asked.TTL); err != nil || ttl <= 0 {
				return made, tenant.Errorf(tenant.ErrInvalid, "ttl %q is not a time such as 90m or 1h", asked.TTL)
			}
		}
	}
	if err := a.ready(); err != nil {
		return made, err
	}
	made.Expires = time.Now().Add(ttl).UTC().Truncate(time.Second)
	made.Token, err = a.Store.CreateToken(r.Context(), ttl)
	if errors.Is(err, tenant.ErrUnavailable) {
		err = notServing{err} // one that was made all the same and got lost lapses unused
	}
	return made, err
}
