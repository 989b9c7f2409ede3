package store

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"nuage/controller/tenant"
)

// reconnect bounds how long a client waits before it tries a server again that was away.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
	MinConnectTimeout: requestTimeout,
}

type port struct{}

func (s *Store) open(context.Context, *connection) (stop func()) { return func() {} }

// refused tells a write that the serving host does not take from an etcd that is away.
func (s *Store) refused(err error) error {
	if st, ok := grpcstatus.FromError(err); ok && st.Code() == codes.PermissionDenied {
		return tenant.Errorf(tenant.ErrDenied, "store: %s", st.Message())
	}
	return s.unavailable(err)
}
