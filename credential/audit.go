package credential

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// The outcomes of an attempt that are not good (docs/http.md, "Logs").
const (
	outcomeRefused = "refused" // nothing was written, and a reason says why
	outcomeUnknown = "unknown" // it may have been written
)

// The reasons of a refusal for which there is no sentinel.
const (
	reasonCancelled = "cancelled"        // the caller left, or its time was over, before anything was sent
	reasonNotSealed = "not_sealed"       // the ring, for a reason that has no name
	reasonDatabase  = "database_refused" // a constraint, or a right that is missing
)

// reasons are the other reasons of a refusal. The first entry that matches decides.
// The list is closed, so that a line never repeats the text of an error.
var reasons = []struct {
	is     error
	reason string
}{
	{ErrQuotaExceeded, "quota"},
	{ErrUnstorable, "unstorable_character"},
	{core.ErrRowsHidden, "rows_hidden"},
	{keyring.ErrNotEnabled, "data_key_not_enabled"},
	{core.ErrStoreUnavailable, "database_unavailable"},
	{core.ErrKeyMissing, "key_missing"},
	{core.ErrKeyMismatch, "key_mismatch"},
	{core.ErrKeyDenied, "key_denied"},
	{core.ErrUnavailable, "key_provider_unavailable"},
	{envelope.ErrNUL, "nul_character"},
}

// reasonOf returns the reason in err, or otherwise.
func reasonOf(err error, otherwise string) string {
	for _, r := range reasons {
		if errors.Is(err, r.is) {
			return r.reason
		}
	}
	return otherwise
}

// sealReason returns why nothing was sealed for the caller of ctx.
func sealReason(ctx context.Context, err error) string {
	if errors.Is(ctx.Err(), context.Canceled) {
		return reasonCancelled
	}
	return reasonOf(err, reasonNotSealed)
}

// attempt is what an audit line is about.
type attempt struct {
	event       string
	userID      int64
	mcpServerID string
}

// refused returns the line of an attempt that wrote nothing.
func (a attempt) refused(reason string) []slog.Attr {
	return append(a.line(outcomeRefused), slog.String("reason", reason))
}

// wrote returns the line of a write that ended with err, or with outcome if that is
// nil.
func (a attempt) wrote(outcome string, err error) []slog.Attr {
	switch {
	case err == nil:
		return a.line(outcome)
	case errors.Is(err, core.ErrOutcomeUnknown):
		return a.line(outcomeUnknown)
	}
	return a.refused(reasonOf(err, reasonDatabase))
}

func (a attempt) line(outcome string) []slog.Attr {
	return []slog.Attr{
		slog.String("event", a.event), slog.Int64("user_id", a.userID), slog.String("mcp_server_id", a.mcpServerID),
		slog.String("outcome", outcome),
	}
}

// audit logs a line. Its handler gets the caller's context, whose request ID it
// adds, and which may have ended. The record has no place in the source: to look
// that up is a tenth of what a line costs, and no handler of the vault's prints it.
func (s *Service) audit(ctx context.Context, line []slog.Attr, more ...slog.Attr) {
	if !s.opts.Logger.Enabled(ctx, slog.LevelInfo) {
		return
	}
	record := slog.NewRecord(time.Now(), slog.LevelInfo, "audit", 0)
	record.AddAttrs(line...)
	record.AddAttrs(more...)
	_ = s.opts.Logger.Handler().Handle(ctx, record) // as a Logger does: there is no other place to report it
}

// keyName is a key ID for the audit log.
func keyName(id envelope.KeyID) string {
	if id.IsZero() {
		return "legacy"
	}
	return id.String()
}
