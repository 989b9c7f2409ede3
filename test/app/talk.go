package main

import (
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const talkEvery = 20 * time.Millisecond

// talkers are connections that are kept busy, so that others can see whether they live.
type talkers struct {
	sync.Mutex
	list []*talker
}

type talker struct {
	sync.Mutex
	conn       net.Conn
	sent, back int
	last       time.Time     // when a byte last came back
	longest    time.Duration // between two since the last report
	err        string
}

func (t *talkers) begin(w http.ResponseWriter, r *http.Request) {
	address, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c, err := net.DialTimeout("tcp4", string(address), 2*time.Second)
	if err != nil {
		http.Error(w, word(err), http.StatusBadGateway)
		return
	}
	one := &talker{conn: c, last: time.Now()}
	go one.send()
	go one.receive()
	t.Lock()
	t.list = append(t.list, one)
	n := len(t.list) - 1
	t.Unlock()
	answer(w, n)
}

func (t *talkers) report(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.URL.Query().Get("n"))
	t.Lock()
	defer t.Unlock()
	if err != nil || n < 0 || n >= len(t.list) {
		http.Error(w, "no such connection", http.StatusNotFound)
		return
	}
	answer(w, t.list[n].report())
}

func (t *talker) report() map[string]any {
	t.Lock()
	defer t.Unlock()
	quiet := time.Since(t.last)
	m := map[string]any{"Sent": t.sent, "Back": t.back, "Quiet": quiet, "Longest": max(t.longest, quiet), "Error": t.err}
	t.longest = 0
	return m
}

func (t *talker) send() {
	for {
		if _, err := t.conn.Write([]byte("!")); err != nil {
			t.end(err)
			return
		}
		t.Lock()
		t.sent++
		t.Unlock()
		time.Sleep(talkEvery)
	}
}

func (t *talker) receive() {
	buf := make([]byte, 4096)
	for {
		n, err := t.conn.Read(buf)
		if err != nil {
			t.end(err)
			return
		}
		t.Lock()
		t.back += n
		t.longest, t.last = max(t.longest, time.Since(t.last)), time.Now()
		t.Unlock()
	}
}

func (t *talker) end(err error) {
	t.conn.Close()
	t.Lock()
	defer t.Unlock()
	if t.err == "" {
		t.err = word(err)
	}
}
