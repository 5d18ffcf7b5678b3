package credential

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// Ring seals and opens records; *keyring.Ring is one.
type Ring interface {
	// Seal appends the record of plaintext to dst.
	Seal(ctx context.Context, dst, plaintext, aad []byte) ([]byte, error)
	// Open appends the plaintext of record to dst.
	Open(ctx context.Context, dst, record, aad []byte) (out []byte, stale bool, err error)
	// Reload takes up what other instances changed.
	Reload(ctx context.Context) error
}

// sealAttempts bounds how often a deposit seals anew because its data key was
// destroyed under it; once is rare already.
const sealAttempts = 3

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

// Deposit seals d and stores it as the user's credential for the server,
// replacing whatever was there. When it returns nil the credential is durable.
// Until it turns to the database the end of ctx stops it; from then on only
// Options.StatementTimeout does. Whatever comes of it is one audit line.
//
// It returns the ring's sentinels (core.ErrKeyMissing, core.ErrKeyMismatch,
// core.ErrKeyDenied, core.ErrUnavailable), core.ErrStoreUnavailable,
// ErrQuotaExceeded, and envelope.ErrNUL if a value to be bound holds a NUL
// character. After an error the credential that was there is unchanged, unless
// it is core.ErrOutcomeUnknown, when either may be there.
func (s *Service) Deposit(ctx context.Context, userID int64, d *Deposit) error {
	a := attempt{event: "deposit", userID: userID, mcpServerID: d.MCPServerID}
	row := &Row{UserID: userID, Metadata: d.metadata()}
	under, err := s.seal(ctx, row, d)
	if err != nil {
		s.audit(ctx, a.refused(sealReason(ctx, err)))
		return fmt.Errorf("sealing credential: %w", err)
	}
	statement, cancel, err := s.begin(ctx, a)
	if err != nil {
		return fmt.Errorf("storing credential: %w", err)
	}
	defer cancel()
	if under, err = s.upsert(statement, row, d, under); err != nil {
		err = fmt.Errorf("storing credential: %w", err)
	}
	s.audit(ctx, a.wrote("stored", err), slog.String("key_id", keyName(under)))
	return err
}

// upsert writes row. Where its data key was destroyed meanwhile it seals d anew; it
// returns the data key that sealed what it wrote, or tried to write last.
func (s *Service) upsert(ctx context.Context, row *Row, d *Deposit, under envelope.KeyID) (envelope.KeyID, error) {
	for attempt := 1; ; attempt++ {
		err := s.store.Upsert(ctx, row, under, s.opts.Quota)
		if !errors.Is(err, keyring.ErrNotEnabled) {
			return under, err
		}
		if attempt == sealAttempts {
			return under, fmt.Errorf("%w: %w", core.ErrUnavailable, err)
		}
		if err := s.ring.Reload(ctx); err != nil {
			return under, err
		}
		again, err := s.seal(ctx, row, d)
		if err != nil {
			return under, fmt.Errorf("sealing anew: %w", err)
		}
		under = again
	}
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

// seal seals both secrets of d into row, under one data key.
func (s *Service) seal(ctx context.Context, row *Row, d *Deposit) (envelope.KeyID, error) {
	buf := aadBuffers.Get().(*[]byte)
	defer aadBuffers.Put(buf)
	for range sealAttempts {
		var err error
		row.RefreshTokenEnc, err = s.sealColumn(ctx, buf, row, RefreshTokenColumn, []byte(d.RefreshToken))
		if err != nil {
			return envelope.KeyID{}, err
		}
		under, _ := envelope.ParseHeader(row.RefreshTokenEnc)
		if d.ClientSecret == nil {
			return under, nil
		}
		row.ClientSecretEnc, err = s.sealColumn(ctx, buf, row, ClientSecretColumn, []byte(*d.ClientSecret))
		if err != nil {
			return envelope.KeyID{}, err
		}
		if second, _ := envelope.ParseHeader(row.ClientSecretEnc); second == under {
			return under, nil
		}
		// The ring rolled in between; one lock guards the row, so seal both anew.
	}
	return envelope.KeyID{}, fmt.Errorf("the ring keeps rolling: %w", core.ErrUnavailable)
}

func (s *Service) sealColumn(ctx context.Context, buf *[]byte, row *Row, column string, plaintext []byte) ([]byte, error) {
	aad, err := AppendAAD(*buf, column, row.UserID, &row.Metadata)
	if err != nil {
		return nil, err
	}
	*buf = aad
	dst := make([]byte, 0, len(plaintext)+envelope.Overhead)
	return s.ring.Seal(ctx, dst, plaintext, aad)
}

// aadBuffers holds buffers for aad, which is no secret.
var aadBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, 512)
	return &b
}}

// Open returns the user's credential for the server with its secrets.
//
// It returns ErrNotFound, core.ErrInvalidCiphertext if a record does not open
// in its row, the ring's sentinels, and core.ErrStoreUnavailable.
func (s *Service) Open(ctx context.Context, userID int64, mcpServerID string) (*Credential, error) {
	row, err := s.store.Get(ctx, userID, mcpServerID)
	if err != nil {
		return nil, fmt.Errorf("reading credential: %w", err)
	}
	c := &Credential{ID: row.ID, Metadata: row.Metadata}
	token, _, err := s.OpenRecord(ctx, row, RefreshTokenColumn)
	if err != nil {
		return nil, err
	}
	c.RefreshToken = core.Secret(envelope.DecodeUTF8(token))
	if row.ClientSecretEnc != nil {
		secret, _, err := s.OpenRecord(ctx, row, ClientSecretColumn)
		if err != nil {
			return nil, err
		}
		opened := core.Secret(envelope.DecodeUTF8(secret))
		c.ClientSecret = &opened
	}
	return c, nil
}

// RecordError says of which encrypted column the record could not be opened.
type RecordError struct {
	Column string
	Err    error
}

// Error implements error.
func (e *RecordError) Error() string { return "opening " + e.Column + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *RecordError) Unwrap() error { return e.Err }

// OpenRecord opens the record in one encrypted column of row, and says whether
// it is stale. The errors are those of Open, in a *RecordError.
func (s *Service) OpenRecord(ctx context.Context, row *Row, column string) (plaintext []byte, stale bool, err error) {
	aad, err := AppendAAD(nil, column, row.UserID, &row.Metadata)
	if err == nil {
		plaintext, stale, err = s.ring.Open(ctx, nil, row.Record(column), aad)
	}
	if err != nil {
		return nil, false, &RecordError{Column: column, Err: err}
	}
	return plaintext, stale, nil
}

// ListPage is the most credentials of a page of List.
const ListPage = 100

// errNoProgress keeps List from going round for ever. SQLite has a row that another
// program wrote with a server ID that is no text behind every text.
var errNoProgress = errors.New("listing credentials: a page does not go on from the one before; is a server ID in the table no text?")

// List returns the metadata of the user's credentials in the order of the bytes of
// their server IDs, in pages of ListPage, of which the last may be shorter; none is
// empty. It decrypts nothing. Pages are read as they are asked for, and none holds a connection to the
// database: what is deposited or removed meanwhile may or may not be in a later
// page, and everything else is in exactly one.
//
// An error is the last thing that it yields; it is core.ErrStoreUnavailable while the
// database does not answer.
func (s *Service) List(ctx context.Context, userID int64) iter.Seq2[[]Metadata, error] {
	return func(yield func([]Metadata, error) bool) {
		var after *string
		for {
			page, err := s.store.List(ctx, userID, after, ListPage)
			if err != nil {
				yield(nil, fmt.Errorf("listing credentials: %w", err))
				return
			}
			if len(page) == 0 {
				return
			}
			last := page[len(page)-1].MCPServerID // before page is the caller's
			if after != nil && last == *after {
				yield(nil, errNoProgress)
				return
			}
			if !yield(page, nil) || len(page) < ListPage {
				return
			}
			after = &last
		}
	}
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

// metadata returns the part of d that is stored as it is.
func (d *Deposit) metadata() Metadata {
	return Metadata{
		MCPServerID:             d.MCPServerID,
		ClientID:                d.ClientID,
		HasClientSecret:         d.ClientSecret != nil,
		ClientSecretExpiresAt:   d.ClientSecretExpiresAt,
		TokenEndpoint:           d.TokenEndpoint,
		TokenEndpointAuthMethod: d.TokenEndpointAuthMethod,
		Scopes:                  d.Scopes,
	}
}

// Record returns the record in the given encrypted column, or nil.
func (r *Row) Record(column string) []byte {
	switch column {
	case RefreshTokenColumn:
		return r.RefreshTokenEnc
	case ClientSecretColumn:
		return r.ClientSecretEnc
	}
	return nil
}
