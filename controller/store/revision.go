package store

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Revision is etcd's, which no write that has returned is newer than: a Read of the same
// revision is still current. It is cheap.
func (s *Store) Revision(ctx context.Context) (int64, error) {
	ses, err := s.acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer ses.release()
	ctx, cancel := ses.bound(ctx)
	defer cancel()
	resp, err := ses.client.Get(ctx, root, clientv3.WithCountOnly())
	if err != nil {
		return 0, s.unavailable(err)
	}
	return resp.Header.Revision, nil
}
