package store

import (
	"context"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func all() []clientv3.OpOption { return []clientv3.OpOption{clientv3.WithPrefix()} }

var opPut, opDelete = clientv3.OpPut, clientv3.OpDelete

// contextMinute is a context for a test of hundreds of writes, beside others.
func contextMinute(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
