package store

import clientv3 "go.etcd.io/etcd/client/v3"

func all() []clientv3.OpOption { return []clientv3.OpOption{clientv3.WithPrefix()} }

var opPut, opDelete = clientv3.OpPut, clientv3.OpDelete
