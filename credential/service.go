package credential

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
)

// Sealer seals records; *keyring.Ring is one.
type Sealer interface {
	// Seal appends the record of plaintext to dst.
	Seal(ctx context.Context, dst, plaintext, aad []byte) ([]byte, error)
}

// Ring seals and opens records; *keyring.Ring is one.
type Ring interface {
	Sealer
	// Open appends the plaintext of record to dst.
	Open(ctx context.Context, dst, record, aad []byte) (out []byte, stale bool, err error)
	// Expect says that records under these data keys are about to be opened: those
	// that are not known are looked for once for all of them.
	Expect(ctx context.Context, ids ...envelope.KeyID) error
	// Reload takes up what other instances changed.
	Reload(ctx context.Context) error
}

// defaultStatementTimeout is Options.StatementTimeout where that is zero.
const defaultStatementTimeout = 15 * time.Second

// Service is the credentials of all users. It is safe for concurrent use.
type Service struct {
	ring  Ring
	store Store
	opts  Options // with its defaults
}

// Options are the optional settings of a Service.
type Options struct {
	// Logger receives one audit line for each deposit and disconnect: who, which
	// server, which data key, what came of it, never a value. Nil is slog.Default.
	Logger *slog.Logger

	// Quota is how many credentials a user may have; zero is any number. It is
	// asked about only where a deposit replaces nothing. Deposits at the same
	// moment may exceed it together, and what is above it stays.
	Quota int

	// StatementTimeout is how long a deposit or a disconnect may take from the
	// moment it turns to the database, whether its caller waits or not. Zero is
	// 15 seconds.
	StatementTimeout time.Duration
}

// NewService returns a service that seals with ring and keeps rows in store.
func NewService(ring Ring, store Store, opts *Options) *Service {
	s := &Service{ring: ring, store: store}
	if opts != nil {
		s.opts = *opts
	}
	if s.opts.Logger == nil {
		s.opts.Logger = slog.Default()
	}
	s.opts.StatementTimeout = cmp.Or(s.opts.StatementTimeout, defaultStatementTimeout)
	return s
}

// begin returns the context of what is sent to the database now: a client that
// hangs up must not cancel a statement that may have taken effect, for nobody could
// say then what became of it. It has the values of ctx, the request ID among them.
// Where ctx has ended before, begin accounts for the attempt and returns an error.
func (s *Service) begin(ctx context.Context, a attempt) (context.Context, context.CancelFunc, error) {
	if err := ctx.Err(); err != nil {
		s.audit(ctx, a.refused(reasonCancelled))
		return nil, nil, fmt.Errorf("%w: nothing was sent: %w", core.ErrStoreUnavailable, err)
	}
	statement, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.StatementTimeout)
	return statement, cancel, nil
}

// Disconnect removes the user's credential for the server, if there is one. It
// decrypts nothing. Once it has turned to the database only
// Options.StatementTimeout ends it, and whatever comes of it is one audit line.
//
// It returns core.ErrStoreUnavailable while the database does not answer. Unless
// that is core.ErrOutcomeUnknown, nothing was removed.
func (s *Service) Disconnect(ctx context.Context, userID int64, mcpServerID string) error {
	a := attempt{event: "disconnect", userID: userID, mcpServerID: mcpServerID}
	statement, cancel, err := s.begin(ctx, a)
	if err != nil {
		return fmt.Errorf("deleting credential: %w", err)
	}
	defer cancel()
	existed, err := s.store.Delete(statement, userID, mcpServerID)
	if errors.Is(err, ErrUnstorable) {
		existed, err = false, nil // no credential can have such an ID
	}
	if err != nil {
		s.audit(ctx, a.wrote("", err))
		return fmt.Errorf("deleting credential: %w", err)
	}
	outcome := "absent"
	if existed {
		outcome = "removed"
	}
	s.audit(ctx, a.wrote(outcome, nil), slog.Bool("existed", existed))
	return nil
}
