// Package main is the one program of the test containers: a web server and client, a
// ping that shows ttl and counts losses, and senders of hand-made frames. It is static
// and never needs a shell, a name service or a file.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

var commands = map[string]func(args []string) error{
	"addr":    addr,
	"serve":   serve,
	"get":     get,
	"ping":    ping,
	"arping":  arping,
	"send":    send,
	"sniff":   sniff,
	"hold":    hold,
	"await":   await,
	"connect": connect,
	"prober":  prober,
	"udp":     udp,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		names := make([]string, 0, len(commands))
		for n := range commands {
			names = append(names, n)
		}
		slices.Sort(names)
		fmt.Fprintf(os.Stderr, "usage: app %s …\n", strings.Join(names, "|"))
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "app %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

// parse reads flags and wants exactly n arguments after them.
func parse(f *flag.FlagSet, args []string, n int, usage string) error {
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() != n {
		return fmt.Errorf("want %s", usage)
	}
	return nil
}

// serve answers HTTP with "HOSTNAME sees PEER", echoes UDP, and ends on TERM at once, so
// that no container stop of a test waits for its ten seconds.
func serve(args []string) error {
	f := flag.NewFlagSet("serve", flag.ContinueOnError)
	listen := f.String("listen", ":80", "address")
	if err := parse(f, args, 0, "no argument"); err != nil {
		return err
	}
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	pc, err := net.ListenPacket("udp", *listen)
	if err != nil {
		return err
	}
	go echo(pc)
	srv := &http.Server{Addr: *listen, ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "%s sees %s\n", name, peer)
		// /bytes/N: a body of N megabytes, for transfers that need more than one segment.
		var mega int
		if _, err := fmt.Sscanf(r.URL.Path, "/bytes/%d", &mega); err == nil {
			block := make([]byte, 1<<20)
			for range mega {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}
	})}
	term()
	return srv.ListenAndServe()
}

// hold does nothing until TERM: a container that is only there to be in a network.
func hold(args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("want no argument")
	}
	term()
	select {}
}

func term() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-c
		os.Exit(0)
	}()
}

func echo(pc net.PacketConn) {
	buf := make([]byte, 65536)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		pc.WriteTo(buf[:n], from) // a lost answer is what the asker measures
	}
}

// get prints the answer of a URL, its body's length if that is long.
func get(args []string) error {
	f := flag.NewFlagSet("get", flag.ContinueOnError)
	timeout := f.Duration("timeout", 3*time.Second, "for all of it")
	if err := parse(f, args, 1, "URL"); err != nil {
		return err
	}
	resp, err := (&http.Client{Timeout: *timeout}).Get(f.Arg(0))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if line, rest, _ := strings.Cut(string(body), "\n"); rest != "" {
		fmt.Printf("%s\n%d bytes\n", line, len(rest))
		return nil
	}
	_, err = os.Stdout.Write(body)
	return err
}

// tries is how often a question without an answer is asked: a busy switch may lose one packet.
const tries = 3

// udp sends a datagram to a serve and waits for its echo; without one it sends it again,
// three times in all, and fails.
func udp(args []string) error {
	f := flag.NewFlagSet("udp", flag.ContinueOnError)
	timeout := f.Duration("timeout", time.Second, "for the echo")
	size := f.Int("size", 32, "of the datagram")
	if err := parse(f, args, 1, "HOST:PORT"); err != nil {
		return err
	}
	c, err := net.Dial("udp", f.Arg(0))
	if err != nil {
		return err
	}
	defer c.Close()
	n, err := 0, error(nil)
	for i := 0; i == 0 || i < tries && errors.Is(err, os.ErrDeadlineExceeded); i++ {
		if _, err := c.Write(make([]byte, *size)); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(*timeout)); err != nil {
			return err
		}
		n, err = c.Read(make([]byte, *size+1))
	}
	if err != nil {
		return err
	}
	fmt.Printf("%d bytes from %s\n", n, f.Arg(0))
	return nil
}
