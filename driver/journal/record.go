package journal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"syscall"
)

// A line of the file is one commit, `CHECKSUM {"n":NUMBER,"writes":[…]}`. JSON has no
// newline in it, so that after damage the next line is found again. The numbers begin
// with 0 and have no gap, so that a line that is missing, or there twice, is seen.

// write is one change of one record.
type write struct {
	Kind  string          `json:"kind"`
	ID    string          `json:"id"`
	Value json.RawMessage `json:"value,omitempty"` // empty: delete
}

// table is the values by kind and ID.
type table map[string]map[string]json.RawMessage

func (t table) apply(writes []write) {
	for _, w := range writes {
		if w.Value == nil {
			delete(t[w.Kind], w.ID)
			continue
		}
		if t[w.Kind] == nil {
			t[w.Kind] = map[string]json.RawMessage{}
		}
		t[w.Kind][w.ID] = w.Value
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode is the inside of the list of writes.
func encode(writes []write) ([]byte, error) {
	text, err := json.Marshal(writes)
	if err != nil {
		return nil, err
	}
	return text[1 : len(text)-1], nil
}

// line is a commit as it is in the file.
func line(number uint64, writes []byte) []byte {
	const checksum = 9 // with the space
	b := make([]byte, checksum, checksum+40+len(writes))
	b = fmt.Appendf(b, `{"n":%d,"writes":[`, number)
	b = append(b, writes...)
	b = append(b, "]}"...)
	copy(b, fmt.Sprintf("%08x ", crc32.Checksum(b[checksum:], castagnoli)))
	return append(b, '\n')
}

// maxLine bounds what line makes.
const maxLine = maxWrites + 64

var errLine = errors.New("not a record")

// parse reads what line wrote.
func parse(b []byte) (number uint64, writes []write, err error) {
	b, whole := bytes.CutSuffix(b, []byte("\n"))
	sum, text, found := bytes.Cut(b, []byte(" "))
	if !whole || !found || len(sum) != 8 {
		return 0, nil, errLine
	}
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if err != nil || uint32(want) != crc32.Checksum(text, castagnoli) {
		return 0, nil, errLine
	}
	var record struct {
		Number uint64  `json:"n"`
		Writes []write `json:"writes"`
	}
	if err := json.Unmarshal(text, &record); err != nil {
		return 0, nil, err
	}
	return record.Number, record.Writes, nil
}

// content is what a file says.
type content struct {
	records table
	next    uint64 // the number after the last line's
	size    int64  // of the whole lines, if there is no damage
	damaged bool
}

// read replays a file. A line that is not the next one, whatever the reason, is damage,
// and takes with it all that was read before. Only the last line may lack its end: that
// is how a crash leaves it.
func read(r io.Reader) (content, error) {
	c := content{records: table{}}
	lost := func() { c.damaged = true; clear(c.records) }
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine+1)
	s.Split(splitLines)
	for s.Scan() {
		if !bytes.HasSuffix(s.Bytes(), []byte("\n")) && c.next > 0 {
			return c, nil
		}
		number, writes, err := parse(s.Bytes())
		if err != nil || number < c.next {
			lost()
			continue
		}
		if number > c.next {
			lost()
		}
		c.records.apply(writes)
		c.next = number + 1
		c.size += int64(len(s.Bytes()))
	}
	switch err := s.Err(); {
	case err == nil && c.next > 0:
		return c, nil
	case err == nil, errors.Is(err, bufio.ErrTooLong), errors.Is(err, syscall.EIO):
		lost() // it lacks even its first line, or its end cannot be read
		return c, nil
	default:
		return c, err
	}
}

// splitLines is bufio.ScanLines with the newline, which the last one may lack.
func splitLines(data []byte, atEOF bool) (int, []byte, error) {
	n := bytes.IndexByte(data, '\n') + 1
	if n == 0 && atEOF {
		n = len(data)
	}
	if n == 0 {
		return 0, nil, nil
	}
	return n, data[:n], nil
}
