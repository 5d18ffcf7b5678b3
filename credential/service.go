package credential

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

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

// Service is the credentials of all users. It is safe for concurrent use.
type Service struct {
	ring  Ring
	store Store
	log   *slog.Logger
}

// Options are the optional settings of a Service.
type Options struct {
	// Logger receives one audit line for each deposit and disconnect: who, which
	// server, which data key, never a value. Nil is slog.Default.
	Logger *slog.Logger
}

// NewService returns a service that seals with ring and keeps rows in store.
func NewService(ring Ring, store Store, opts *Options) *Service {
	if opts == nil {
		opts = &Options{}
	}
	log := opts.Logger
	if log == nil {
		log = slog.Default()
	}
	return &Service{ring: ring, store: store, log: log}
}

// Deposit seals d and stores it as the user's credential for the server,
// replacing whatever was there. When it returns nil the credential is durable.
//
// It returns the ring's sentinels (core.ErrKeyMissing, core.ErrKeyMismatch,
// core.ErrKeyDenied, core.ErrUnavailable), core.ErrStoreUnavailable, and
// envelope.ErrNUL if a value to be bound holds a NUL character. After an error
// the credential that was there is unchanged, unless it is
// core.ErrStoreUnavailable, when either may be there.
func (s *Service) Deposit(ctx context.Context, userID int64, d *Deposit) error {
	row := &Row{UserID: userID, Metadata: d.metadata()}
	for attempt := 1; ; attempt++ {
		under, err := s.seal(ctx, row, d)
		if err != nil {
			return fmt.Errorf("sealing credential: %w", err)
		}
		err = s.store.Upsert(ctx, row, under)
		if errors.Is(err, keyring.ErrNotEnabled) && attempt < sealAttempts {
			if err = s.ring.Reload(ctx); err == nil {
				continue
			}
		}
		if errors.Is(err, keyring.ErrNotEnabled) {
			return fmt.Errorf("storing credential: %w: %w", core.ErrUnavailable, err)
		}
		if err != nil {
			return fmt.Errorf("storing credential: %w", err)
		}
		s.audit(ctx, "deposit", userID, d.MCPServerID, slog.String("key_id", keyName(under)))
		return nil
	}
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

// List returns the metadata of the user's credentials, by server ID. It decrypts
// nothing.
func (s *Service) List(ctx context.Context, userID int64) ([]Metadata, error) {
	list, err := s.store.List(ctx, userID)
	if err != nil {
		return nil, fmt.Errorf("listing credentials: %w", err)
	}
	return list, nil
}

// Disconnect removes the user's credential for the server, if there is one. It
// decrypts nothing.
func (s *Service) Disconnect(ctx context.Context, userID int64, mcpServerID string) error {
	existed, err := s.store.Delete(ctx, userID, mcpServerID)
	if err != nil {
		return fmt.Errorf("deleting credential: %w", err)
	}
	s.audit(ctx, "disconnect", userID, mcpServerID, slog.Bool("existed", existed))
	return nil
}

func (s *Service) audit(ctx context.Context, event string, userID int64, mcpServerID string, more slog.Attr) {
	s.log.LogAttrs(ctx, slog.LevelInfo, "audit",
		slog.String("event", event), slog.Int64("user_id", userID), slog.String("mcp_server_id", mcpServerID), more)
}

// keyName is a key ID for the audit log.
func keyName(id envelope.KeyID) string {
	if id.IsZero() {
		return "legacy"
	}
	return id.String()
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
