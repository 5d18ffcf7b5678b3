package plugins

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxLogLine bounds a line of a plugin's log, in bytes; what is over is
	// dropped.
	maxLogLine = 8 << 10
	// maxLogAttrs bounds what is passed on with a line.
	maxLogAttrs = 32

	// logRate is how many bytes of a plugin's log are passed on in a second, and
	// logBurst how many at once. A line counts lineCost besides its length. Its last
	// words have a budget of their own, of lastRate and lastBurst.
	logRate   = 4 << 10
	logBurst  = 256 << 10
	lastRate  = 1 << 10
	lastBurst = 64 << 10
	lineCost  = 256

	// logMessage is the message of every record of a plugin's: its words are an
	// attribute, and cannot be taken for a message of the host's.
	logMessage = "the plugin logged"
)

// logBudget is what one plugin may still log, in all of its processes. It is safe
// for concurrent use.
type logBudget struct {
	usual, last *rate.Limiter
	dropped     atomic.Int64 // lines since the last that was passed on
}

func newLogBudget() *logBudget {
	return &logBudget{usual: rate.NewLimiter(logRate, logBurst), last: rate.NewLimiter(lastRate, lastBurst)}
}

// spent reports whether not even a short line may be passed on.
func (b *logBudget) spent() bool { return b.usual.Tokens() < lineCost }

func (b *logBudget) drop() { b.dropped.Add(1) }

// take reports whether a line of size bytes may be passed on, and how many could not
// before it.
func (b *logBudget) take(size int, last bool) (dropped int64, ok bool) {
	limiter := b.usual
	if last {
		limiter = b.last
	}
	if !limiter.AllowN(time.Now(), size+lineCost) {
		b.drop()
		return 0, false
	}
	return b.dropped.Swap(0), true
}

// logWriter passes on what a plugin writes to standard error, a line a record, to
// slog. It understands JSON of slog and of hclog; anything else is a text. It is
// safe for concurrent use.
type logWriter struct {
	log    *slog.Logger
	budget *logBudget

	mu      sync.Mutex
	line    []byte
	long    bool // the rest of the line is being dropped
	panics  bool // the process is writing its last words
	highest slog.Level
}

// newLogWriter returns a logWriter that lowers nothing and raises nothing above
// highest.
func newLogWriter(log *slog.Logger, budget *logBudget, highest slog.Level) *logWriter {
	return &logWriter{log: log, budget: budget, highest: highest}
}

// Write never fails.
func (w *logWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(b)
	for len(b) > 0 {
		part, rest, found := bytes.Cut(b, []byte("\n"))
		if room := maxLogLine - len(w.line); len(part) > room {
			part, w.long = part[:room], true
		}
		w.line = append(w.line, part...)
		if found {
			w.emit()
			w.line, w.long = w.line[:0], false
		}
		b = rest
	}
	return n, nil
}

// emit passes on one line, if the budget permits. w.mu is held.
func (w *logWriter) emit() {
	if !w.log.Enabled(context.Background(), w.highest) {
		return // no line can come through
	}
	w.panics = w.panics || bytes.HasPrefix(w.line, []byte("panic: ")) || bytes.HasPrefix(w.line, []byte("fatal error: "))
	if !w.panics && w.budget.spent() {
		w.budget.drop()
		return
	}
	text := cut(string(w.line), maxLogLine)
	if strings.TrimSpace(text) == "" {
		return
	}
	var fields map[string]any
	if !w.long && json.Unmarshal(w.line, &fields) == nil {
		w.emitFields(fields)
		return
	}
	level := slog.LevelDebug
	if w.panics {
		level = slog.LevelError
	}
	w.record(level, text)
}

func (w *logWriter) emitFields(fields map[string]any) {
	message := take(fields, "msg", "@message")
	level := levelOf(take(fields, "level", "@level"))
	take(fields, "time", "@timestamp")
	take(fields, "@module")
	take(fields, "plugin") // the host says which it is
	var attrs []slog.Attr
	for name, value := range fields {
		if len(attrs) == maxLogAttrs {
			break
		}
		text, ok := value.(string)
		if !ok {
			b, _ := json.Marshal(value) // came from JSON
			text = string(b)
		}
		attrs = append(attrs, slog.String(cut(name, 64), cut(text, maxLogLine)))
	}
	w.record(level, cut(message, maxLogLine), attrs...)
}

// record passes on the plugin's words. They and their attributes are attributes
// whose names the host chose.
func (w *logWriter) record(level slog.Level, words string, attrs ...slog.Attr) {
	level = min(level, w.highest)
	ctx := context.Background()
	if !w.log.Enabled(ctx, level) {
		return
	}
	dropped, ok := w.budget.take(len(w.line), w.panics)
	if !ok {
		return
	}
	if dropped > 0 {
		w.log.WarnContext(ctx, "lines of the plugin's log were dropped: it logs too much", "lines", dropped)
	}
	w.log.LogAttrs(ctx, level, logMessage, slog.String("words", words), slog.GroupAttrs("fields", attrs...))
}

// take removes the fields of these names and returns the last that was there.
func take(fields map[string]any, names ...string) string {
	var text string
	for _, name := range names {
		if s, ok := fields[name].(string); ok {
			text = s
		}
		delete(fields, name)
	}
	return text
}

func levelOf(s string) slog.Level {
	switch strings.ToLower(s) {
	case "error", "fatal", "panic":
		return slog.LevelError
	case "warn", "warning":
		return slog.LevelWarn
	case "info":
		return slog.LevelInfo
	}
	return slog.LevelDebug
}
