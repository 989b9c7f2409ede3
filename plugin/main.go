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
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
)

// version is set when linking.
var version = "dev"

const usage = `nuage-plugin puts Docker containers into tenant networks.

usage: nuage-plugin [--host] [--state DIR] | --version

Without --host it runs as Docker's managed plugin (see config.json); with it, as a
daemon on the host (see dist/nuage-plugin.service). Settings come from the environment;
docs/operation.md explains them:
  %s

`

func main() {
	host := flag.Bool("host", false, "run as a daemon on the host")
	state := flag.String("state", "", "directory of what must outlive restarts (default /var/lib/nuage, or the plugin's own)")
	show := flag.Bool("version", false, "print the version and exit")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), usage, strings.Join(settingNames(), "\n  "))
		flag.PrintDefaults()
	}
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
	log.SetFormatter(&logrus.TextFormatter{TimestampFormat: logTime})
	out := newLineWriter(os.Stdout)
	log.SetOutput(out)
	places := managedPlaces(*state)
	if *host {
		places = hostPlaces(*state)
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := keepRunning(ctx, os.Getenv, places, log)
	if err != nil {
		log.WithError(err).Error("nuage ends")
	}
	log.SetOutput(io.Discard)
	out.close()
	if err != nil {
		os.Exit(1)
	}
}

// lookAgain is how often settings that may say something else are read again.
var lookAgain = 5 * time.Second

// keepRunning runs until ctx ends, and begins anew when settings that were refused say something
// else, since a file or an interface that was missing has come, or the etcd cluster's authority
// has been renewed.
func keepRunning(ctx context.Context, getenv func(string) string, places Places, log *logrus.Logger) (err error) {
	for err == nil && ctx.Err() == nil {
		settings := readSettings(getenv)
		log.SetLevel(settings.LogLevel)
		for _, p := range settings.Problems {
			log.WithError(p).Error("bad setting: nothing new is attached until it is mended")
		}
		once, end := context.WithCancel(ctx)
		var watching sync.WaitGroup
		if settings.mayChange() {
			watching.Go(func() {
				if untilOther(once, getenv, settings) {
					log.Info("the settings say something else now: beginning anew")
					end()
				}
			})
		}
		err = run(once, settings, places, log)
		end()
		watching.Wait()
	}
	return err
}

// mayChange is whether something is refused that may come, or a host with others has no VTEP yet,
// or there are files that are renewed.
func (s Settings) mayChange() bool {
	alone := s.Listen == "" && s.Join == "" && len(s.Store) == 0
	return len(s.Problems) > 0 || !alone && !s.VTEP.IsValid() || s.StoreTLS != nil
}

// untilOther waits until settings lack something else or nothing, or have another authority;
// false if ctx ends before. What is refused now and was not, such as a file that is being
// renewed, is no reason to give up what works.
func untilOther(ctx context.Context, getenv func(string) string, s Settings) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(lookAgain):
		}
		now := readSettings(getenv)
		switch refused, was := now.Err(), s.Err(); {
		case was == nil && refused != nil:
		case text(refused) != text(was), now.VTEP.IsValid() && !s.VTEP.IsValid(),
			s.StoreTLS != nil && now.StoreTLS != nil && !now.StoreTLS.RootCAs.Equal(s.StoreTLS.RootCAs):
			return true
		}
	}
}
