package store

import (
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/sirupsen/logrus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// logCore writes what etcd logs at warn or above to our log. While etcd is being closed it
// is silent: every server that ends as it should reports an error then.
type logCore struct {
	log     logrus.FieldLogger
	fields  []zapcore.Field
	closing *atomic.Bool
}

// maxField is how much of a field is logged: etcd names all keys of a request that was slow,
// which of a restoration are megabytes.
const maxField = 1000

// benign are warnings of etcd about what is meant to be as it is.
var benign = map[string]bool{
	// While a start replays the log, etcd refuses its own request again and again. Whether it
	// has succeeded is told by Ready.
	"failed to publish local member to cluster through raft":                               true,
	"simple token is not cryptographically signed":                                         true, // no tokens are given out
	"exceeded recommended request limit":                                                   true, // by a restoration alone
	"Running http and grpc server on single port. This is not recommended for production.": true,
}

func (c *logCore) Enabled(l zapcore.Level) bool {
	return l >= zapcore.WarnLevel && (l > zapcore.ErrorLevel || !c.closing.Load())
}

func (c *logCore) With(fields []zapcore.Field) zapcore.Core {
	d := *c
	d.fields = append(append([]zapcore.Field{}, c.fields...), fields...)
	return &d
}

func (c *logCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) && !benign[e.Message] {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *logCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range append(append([]zapcore.Field{}, c.fields...), fields...) {
		f.AddTo(enc)
	}
	for name, value := range enc.Fields {
		if text, ok := value.(string); ok && len(text) > maxField {
			enc.Fields[name] = fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(text[:maxField], ""), len(text))
		}
	}
	log := c.log.WithFields(logrus.Fields(enc.Fields))
	if e.Level == zapcore.WarnLevel {
		log.Warn("etcd: " + e.Message)
	} else {
		log.Error("etcd: " + e.Message)
	}
	return nil
}

func (c *logCore) Sync() error { return nil }

// fatalHook runs instead of the exit or panic that etcd asks for: the goroutine ends, the
// process goes on.
type fatalHook func(error)

func (h fatalHook) OnWrite(ce *zapcore.CheckedEntry, fields []zapcore.Field) {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	err := fmt.Errorf("etcd: %s", ce.Message)
	if cause, ok := enc.Fields["error"]; ok {
		err = fmt.Errorf("etcd: %s: %v", ce.Message, cause)
	}
	h(err)
	runtime.Goexit()
}

func newZap(log logrus.FieldLogger, closing *atomic.Bool, fatal fatalHook) *zap.Logger {
	return zap.New(&logCore{log: log, closing: closing}, zap.WithFatalHook(fatal), zap.WithPanicHook(fatal))
}
