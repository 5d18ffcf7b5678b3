// Package audit writes the ring's events to the audit log: what happened to which
// data key.
package audit

import (
	"context"
	"errors"
	"log/slog"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
)

// Key writes an event of the data key named id.
func Key(log *slog.Logger, event string, id envelope.KeyID, version int64, more ...slog.Attr) {
	attrs := append([]slog.Attr{
		slog.String("event", event), slog.String("key_id", id.String()), slog.Int64("key_version", version),
	}, more...)
	log.LogAttrs(context.Background(), slog.LevelInfo, "audit", attrs...)
}

// Removal is Key for what ended with err: nothing if that says that nothing was
// removed, and a line that says so if nobody knows.
func Removal(log *slog.Logger, err error, event string, id envelope.KeyID, version int64, more ...slog.Attr) {
	switch {
	case err == nil:
		Key(log, event, id, version, more...)
	case errors.Is(err, core.ErrOutcomeUnknown):
		Key(log, event, id, version, append(more, slog.String("outcome", "unknown"))...)
	}
}
