// The nuage-plugin command is the whole of nuage on a Docker host: the network driver and
// the IPAM driver that dockerd calls, the agent that programs the bridge, the tenant store
// and its REST API. It wires the packages together and speaks the plugin protocol; it never
// decides anything about networks itself.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/sirupsen/logrus"
)

// version is set when linking.
var version = "dev"

const usage = `nuage-plugin puts Docker containers into tenant networks.

usage: nuage-plugin [--host] [--state DIR]

Without --host it runs as Docker's managed plugin (see config.json); with it, as a
daemon on the host (see dist/nuage-plugin.service). Settings come from the environment:
NUAGE_BRIDGE NUAGE_DATAPATH NUAGE_VTEP NUAGE_STORE NUAGE_STORE_CA NUAGE_STORE_CERT
NUAGE_STORE_KEY NUAGE_ENTERPRISE NUAGE_AUTOCREATE NUAGE_SCOPE NUAGE_MTU
NUAGE_CONNTRACK_LIMIT NUAGE_LOG_LEVEL;
docs/operation.md explains them.

`

func main() {
	host := flag.Bool("host", false, "run as a daemon on the host")
	state := flag.String("state", "", "directory of what must outlive restarts (default /var/lib/nuage, or the plugin's own)")
	show := flag.Bool("version", false, "print the version and exit")
	flag.Usage = func() { fmt.Fprint(flag.CommandLine.Output(), usage); flag.PrintDefaults() }
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if *show {
		fmt.Println("nuage-plugin", version)
		return
	}

	// stdout, since what a managed plugin writes to stderr arrives in dockerd's log as an error.
	log := logrus.New()
	out := newLineWriter(os.Stdout)
	log.SetOutput(out)
	settings := readSettings(os.Getenv)
	log.SetLevel(settings.LogLevel)
	for _, p := range settings.Problems {
		log.WithError(p).Error("bad setting: its default is used, and nothing new is attached until it is mended")
	}
	places := managedPlaces(*state)
	if *host {
		places = hostPlaces(*state)
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := run(ctx, settings, places, log)
	if err != nil {
		log.WithError(err).Error("nuage ends")
	}
	log.SetOutput(io.Discard)
	out.close()
	if err != nil {
		os.Exit(1)
	}
}
