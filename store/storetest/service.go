package storetest

import (
	"context"
	"log/slog"
	"strings"
	"sync"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
)

// NewService returns a service over s, with opts but for the logger, and its audit
// lines. Its ring encrypts nothing: what it seals has the header of a record under
// the key, or none if that is zero, and a store looks no further.
func NewService(s credential.Store, key envelope.KeyID, opts credential.Options) (*credential.Service, *Audit) {
	audit := &Audit{}
	opts.Logger = slog.New(audit)
	return credential.NewService(ring{key}, s, &opts), audit
}

// ring seals without a cipher.
type ring struct{ key envelope.KeyID }

func (r ring) Seal(_ context.Context, dst, _, _ []byte) ([]byte, error) {
	if r.key.IsZero() {
		return append(dst, legacy()...), nil
	}
	return append(dst, sealed(r.key)...), nil
}

func (ring) Open(_ context.Context, dst, _, _ []byte) ([]byte, bool, error) { return dst, false, nil }

func (ring) Reload(context.Context) error                    { return nil }
func (ring) Expect(context.Context, ...envelope.KeyID) error { return nil }

// Audit is a slog.Handler that keeps audit lines. It is safe for concurrent use.
type Audit struct {
	mu    sync.Mutex
	lines []string
}

// Lines returns each line as its event, outcome and, if it has one, reason.
func (a *Audit) Lines() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.lines...)
}

// Enabled implements slog.Handler.
func (a *Audit) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (a *Audit) Handle(_ context.Context, r slog.Record) error {
	said := make(map[string]string)
	r.Attrs(func(attr slog.Attr) bool {
		said[attr.Key] = attr.Value.String()
		return true
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lines = append(a.lines, strings.TrimSpace(said["event"]+" "+said["outcome"]+" "+said["reason"]))
	return nil
}

// WithAttrs implements slog.Handler.
func (a *Audit) WithAttrs([]slog.Attr) slog.Handler { return a }

// WithGroup implements slog.Handler.
func (a *Audit) WithGroup(string) slog.Handler { return a }
