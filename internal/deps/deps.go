// Package deps holds the module's requirements while packages are being written; it goes once they import what they use.
package deps

import (
	_ "github.com/digitalocean/go-openvswitch/ovs"
	_ "github.com/docker/docker/client"
	_ "github.com/docker/go-plugins-helpers/ipam"
	_ "github.com/docker/go-plugins-helpers/network"
	_ "github.com/google/uuid"
	_ "github.com/ovn-kubernetes/libovsdb/client"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "github.com/sirupsen/logrus"
	_ "github.com/spf13/cobra"
	_ "github.com/vishvananda/netlink"
	_ "github.com/vishvananda/netns"
	_ "go.etcd.io/bbolt"
	_ "go.etcd.io/etcd/client/v3"
	_ "go.etcd.io/etcd/server/v3/embed"
	_ "go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/sys/unix"
	_ "pgregory.net/rapid"
	_ "sigs.k8s.io/yaml"
)
