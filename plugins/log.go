package plugins

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	// maxLogLine bounds a line of a plugin's log, in bytes; what is over is
	// dropped.
	maxLogLine = 8 << 10
	// maxLogAttrs bounds what is passed on with a line.
	maxLogAttrs = 32
)

// logWriter passes on what a plugin writes to standard error, a line a record, to
// slog. It understands JSON of slog and of hclog; anything else is a text. It is
// safe for concurrent use.
type logWriter struct {
	log *slog.Logger

	mu      sync.Mutex
	line    []byte
	long    bool // the rest of the line is being dropped
	panics  bool // the process is writing its last words
	highest slog.Level
}

// newLogWriter returns a logWriter that lowers nothing and raises nothing above
// highest.
func newLogWriter(log *slog.Logger, highest slog.Level) *logWriter {
	return &logWriter{log: log, highest: highest}
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

// emit passes on one line. w.mu is held.
func (w *logWriter) emit() {
	text := cut(string(w.line), maxLogLine)
	if strings.TrimSpace(text) == "" {
		return
	}
	var fields map[string]any
	if !w.long && json.Unmarshal(w.line, &fields) == nil {
		w.emitFields(fields)
		return
	}
	w.panics = w.panics || strings.HasPrefix(text, "panic: ") || strings.HasPrefix(text, "fatal error: ")
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

// record hands the plugin's words to the handler: they are not a message of ours.
func (w *logWriter) record(level slog.Level, message string, attrs ...slog.Attr) {
	level = min(level, w.highest)
	ctx := context.Background()
	if !w.log.Enabled(ctx, level) {
		return
	}
	r := slog.NewRecord(time.Now(), level, message, 0)
	r.AddAttrs(attrs...)
	_ = w.log.Handler().Handle(ctx, r) // as slog.Logger does
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
