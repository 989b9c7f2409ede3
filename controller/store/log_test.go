package store

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"
)

// TestLongFields: what etcd logs of a large request does not flood the log.
func TestLongFields(t *testing.T) {
	log := &logged{}
	z := newZap(log.logger(), &atomic.Bool{}, func(error) {})
	z.Warn("apply request took too long", zap.String("request", strings.Repeat("ä", 1<<20)), zap.Error(errors.New("why")), zap.Int("n", 7))
	line := strings.Join(log.lines, "\n")
	if len(line) > 2*maxField || !strings.Contains(line, "ä… (2097152 bytes)") || !strings.Contains(line, "why") || !strings.Contains(line, "n:7") {
		t.Errorf("%d bytes: %.200s", len(line), line)
	}
}
