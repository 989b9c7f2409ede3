package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

const protocolSCTP = "ip4:132"

// A question is whether one address can be reached, an answer is in the words below.
type question struct{ Protocol, Address string }

// The answers. Of sctp only the receiver knows: see /seen.
const (
	open        = "open"
	refused     = "refused"
	unreachable = "unreachable"
	silent      = "silent"
	sent        = "sent"
)

// prober serves the ports given, TCP and UDP, and answers, on a unix socket, what it can
// reach itself, so that a truth table of thousands of cells needs no process a cell. Its
// SCTP is one datagram with SCTP's header, since kernels often lack the protocol.
func prober(args []string) error {
	f := flag.NewFlagSet("prober", flag.ContinueOnError)
	ports := f.String("ports", "80,81", "to serve")
	if err := parse(f, args, 1, "SOCKET"); err != nil {
		return err
	}
	for port := range strings.SplitSeq(*ports, ",") {
		tcp, err := net.Listen("tcp4", ":"+port)
		if err != nil {
			return err
		}
		go accept(tcp)
		udp, err := net.ListenPacket("udp4", ":"+port)
		if err != nil {
			return err
		}
		go echo(udp)
	}
	raw, err := net.ListenPacket(protocolSCTP, "0.0.0.0")
	if err != nil {
		return err
	}
	var s seen
	go s.receive(raw)
	os.Remove(f.Arg(0))
	control, err := net.Listen("unix", f.Arg(0))
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /probe", probe)
	var talks talkers
	mux.HandleFunc("POST /talk", talks.begin)
	mux.HandleFunc("GET /talk", talks.report)
	mux.HandleFunc("GET /seen", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.take()) })
	term()
	return (&http.Server{Handler: mux, ReadHeaderTimeout: time.Second}).Serve(control)
}

func accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			io.Copy(c, c) // what it was sent; a cut connection is what the asker measures
		}()
	}
}

// seen are the SCTP datagrams that came in, as "SOURCE>PORT".
type seen struct {
	sync.Mutex
	list []string
}

func (s *seen) receive(raw net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := raw.ReadFrom(buf)
		if err != nil {
			return
		}
		if n >= 12 {
			s.Lock()
			s.list = append(s.list, fmt.Sprintf("%s>%d", from, binary.BigEndian.Uint16(buf[2:])))
			s.Unlock()
		}
	}
}

func (s *seen) take() []string {
	s.Lock()
	defer s.Unlock()
	list := s.list
	s.list = nil
	return list
}

func answer(w http.ResponseWriter, v any) {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func probe(w http.ResponseWriter, r *http.Request) {
	var ask struct {
		Timeout   time.Duration
		Questions []question
	}
	if err := json.NewDecoder(r.Body).Decode(&ask); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answers := make([]string, len(ask.Questions))
	var wg sync.WaitGroup
	for i, q := range ask.Questions {
		wg.Go(func() { answers[i] = reach(q, ask.Timeout) })
	}
	wg.Wait()
	answer(w, answers)
}

func reach(q question, timeout time.Duration) string {
	if q.Protocol == "sctp" {
		return sendSCTP(q.Address)
	}
	c, err := net.DialTimeout(q.Protocol+"4", q.Address, timeout)
	if err != nil {
		return word(err)
	}
	defer c.Close()
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0) // thousands of probes must not fill the port range
		return open
	}
	c.SetDeadline(time.Now().Add(timeout))
	if _, err := c.Write([]byte("?")); err != nil {
		return word(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		return word(err)
	}
	return open
}

func word(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return refused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return unreachable
	}
	var late net.Error
	if errors.As(err, &late) && late.Timeout() {
		return silent
	}
	return err.Error()
}

func sendSCTP(address string) string {
	to, err := net.ResolveUDPAddr("udp4", address)
	if err != nil {
		return err.Error()
	}
	c, err := net.Dial(protocolSCTP, to.IP.String())
	if err != nil {
		return word(err)
	}
	defer c.Close()
	packet := make([]byte, 20)
	binary.BigEndian.PutUint16(packet, 40000)
	binary.BigEndian.PutUint16(packet[2:], uint16(to.Port))
	if _, err := c.Write(packet); err != nil {
		return word(err)
	}
	return sent
}
