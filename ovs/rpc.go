package ovs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
)

// session is one connection to ovsdb-server with a monitor of what concerns us: the
// JSON-RPC of RFC 7047, of which we need transact, echo and, from ovsdb-server(7),
// monitor_cond with its short updates.
//
// It is our own because the library for it (libovsdb) waits for its locks past a
// context's end, tells of a lost connection only to who is listening at that moment, and
// races with itself when a connection is lost while it is being opened; here a session
// is simply dead from then on.
type session struct {
	conn  net.Conn
	out   chan []byte
	dirty chan struct{} // tables have changed
	gone  chan struct{} // closed when the connection is lost
	why   error         // of the loss; read after gone
	asked int           // see keep; its goroutine's own

	mu     sync.Mutex
	tables tables
	calls  map[int]chan answer
	lastID int
}

type answer struct {
	Result json.RawMessage
	Error  json.RawMessage
}

// message is any of JSON-RPC's three.
type message struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method,omitempty"`
	Params json.RawMessage `json:"params,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  json.RawMessage `json:"error,omitempty"`
}

// monitorCall is the number of a session's first call.
const monitorCall = 1

// errLost is the end of a session under a call; whether the call had an effect is open.
var errLost = errors.New("the connection to ovsdb-server was lost")

// connect opens a session whose tables show the database.
func connect(ctx context.Context, socket string) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	s := &session{conn: conn, out: make(chan []byte), dirty: make(chan struct{}, 1), gone: make(chan struct{}),
		tables: newTables(), calls: map[int]chan answer{}}
	go s.read()
	go s.write()
	if _, err := s.call(ctx, "monitor_cond", databaseName, nil, monitored()); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// close ends the session; calls under way return errLost.
func (s *session) close() { s.conn.Close() }

// read takes in what the server sends, in its order: an update is in the tables before
// the answer to the transaction that caused it is given to its caller.
func (s *session) read() {
	decoder := json.NewDecoder(s.conn)
	for s.why == nil {
		var m message
		if s.why = decoder.Decode(&m); s.why == nil {
			s.why = s.take(m)
		}
	}
	s.conn.Close()
	close(s.gone)
}

func (s *session) take(m message) error {
	switch m.Method {
	case "":
		var id int
		if json.Unmarshal(m.ID, &id) != nil {
			return fmt.Errorf("an answer to no call: %s", m.ID)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if id == monitorCall && m.Result != nil { // here, before an update is read that builds on it
			if err := s.tables.apply(m.Result); err != nil {
				return fmt.Errorf("monitor_cond: %w", err)
			}
		}
		if c, waiting := s.calls[id]; waiting {
			c <- answer{m.Result, m.Error}
			delete(s.calls, id)
		}
	case "echo":
		reply, err := json.Marshal(map[string]json.RawMessage{"id": m.ID, "result": m.Params, "error": json.RawMessage("null")})
		if err != nil {
			return err
		}
		select { // a server that asks and does not read is not waited for
		case s.out <- reply:
		default:
		}
	case "update2":
		var params [2]json.RawMessage
		if err := json.Unmarshal(m.Params, &params); err != nil {
			return fmt.Errorf("update2: %w", err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if err := s.tables.apply(params[1]); err != nil {
			return fmt.Errorf("update2: %w", err)
		}
		signal(s.dirty)
	}
	return nil
}

func (s *session) write() {
	for {
		select {
		case <-s.gone:
			return
		case b := <-s.out:
			if _, err := s.conn.Write(b); err != nil {
				s.conn.Close() // ends read, and so the session
				return
			}
		}
	}
}

// call sends a request and waits for its answer, the end of ctx, or of the session.
func (s *session) call(ctx context.Context, method string, params ...any) (json.RawMessage, error) {
	if params == nil {
		params = []any{} // the server hangs up on null
	}
	done := make(chan answer, 1)
	s.mu.Lock()
	s.lastID++
	id := s.lastID
	s.calls[id] = done
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.calls, id)
		s.mu.Unlock()
	}()
	request, err := json.Marshal(map[string]any{"id": id, "method": method, "params": params})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	select {
	case s.out <- request:
	case <-s.gone:
		return nil, s.lost()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	select {
	case a := <-done:
		if len(a.Error) > 0 && string(a.Error) != "null" {
			return nil, fmt.Errorf("%s: %s", method, a.Error)
		}
		return a.Result, nil
	case <-s.gone:
		return nil, s.lost()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (s *session) lost() error { return fmt.Errorf("%w: %w", errLost, s.why) }

// refusal is a transaction that the database refused, in its own words.
type refusal struct {
	Kind    string `json:"error"`
	Details string `json:"details"`
}

func (r refusal) Error() string { return fmt.Sprintf("ovsdb-server: %s: %s", r.Kind, r.Details) }

// taken tells whether another row already has the name.
func (r refusal) taken() bool { return r.Kind == "constraint violation" }

// transact runs the operations as one transaction. When it returns nil, the session's
// tables show the effect. A refusal had none; after any other error it is open.
func (s *session) transact(ctx context.Context, ops []operation) error {
	params := make([]any, 1, 1+len(ops))
	params[0] = databaseName
	for _, op := range ops {
		params = append(params, op)
	}
	result, err := s.call(ctx, "transact", params...)
	if err != nil {
		return err
	}
	var results []*refusal // null for an operation after one that failed
	if err := json.Unmarshal(result, &results); err != nil {
		return fmt.Errorf("transact: %w", err)
	}
	for _, r := range results {
		if r != nil && r.Kind != "" {
			return *r
		}
	}
	return nil
}
