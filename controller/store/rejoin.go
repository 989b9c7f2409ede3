package store

import (
	"context"
	"slices"

	"github.com/sirupsen/logrus"

	"nuage/controller/tenant"
)

// rejoin joins by another token of the same fleet.
func (c Credentials) rejoin(ctx context.Context, by JoinConfig) (Credentials, error) {
	t, err := parseToken(by.Token)
	if err != nil {
		return Credentials{}, err
	}
	if t.Authority != digest(c.authority.Raw) {
		return Credentials{}, tenant.Errorf(tenant.ErrDenied, "the token is of another fleet than this host's certificate: to leave that, remove %s", by.Dir)
	}
	return joinWith(ctx, by, t)
}

// follow takes the endpoint of a newer token of the same fleet.
func (c Credentials) follow(text string, log logrus.FieldLogger) Credentials {
	t, err := parseToken(text)
	if err != nil || t.Authority != digest(c.authority.Raw) || slices.Equal(c.kept.Endpoints, []string{t.Endpoint}) {
		return c
	}
	s := c.kept
	s.Endpoints = []string{t.Endpoint}
	moved, err := s.credentials(c.dir)
	if err == nil {
		err = s.write(c.dir)
	}
	if err != nil {
		log.WithError(err).Warn("the token's endpoint cannot be taken")
		return c
	}
	log.WithField("endpoint", t.Endpoint).Info("the serving host is taken from the token")
	return moved
}
