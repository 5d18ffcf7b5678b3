package credential

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
)

// Open returns the user's credential for the server with its secrets.
//
// It returns ErrNotFound, core.ErrInvalidCiphertext if a record does not open
// in its row, the ring's sentinels, and core.ErrStoreUnavailable.
func (s *Service) Open(ctx context.Context, userID int64, mcpServerID string) (*Credential, error) {
	row, err := s.Read(ctx, userID, mcpServerID)
	if err != nil {
		return nil, err
	}
	return s.OpenRow(ctx, row)
}

// Read returns the user's credential for the server as the database holds it. It returns
// ErrNotFound, and core.ErrStoreUnavailable.
func (s *Service) Read(ctx context.Context, userID int64, mcpServerID string) (*Row, error) {
	row, err := s.store.Get(ctx, userID, mcpServerID)
	if err != nil {
		return nil, fmt.Errorf("reading credential: %w", err)
	}
	return row, nil
}

// OpenRow opens the records of row. The errors are those of Open, in a *RecordError.
func (s *Service) OpenRow(ctx context.Context, row *Row) (*Credential, error) {
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

// Expect says that the records of rows are about to be opened: one look into the store
// is then enough for all data keys that are not known, of which rows from a partial
// restore may name as many as there are. It returns the errors of the ring's Expect.
func (s *Service) Expect(ctx context.Context, rows []Row) error {
	ids := make(map[envelope.KeyID]struct{})
	for i := range rows {
		for _, c := range encryptedColumns {
			if id, ok := envelope.ParseHeader(rows[i].Record(c.Name)); ok {
				ids[id] = struct{}{}
			}
		}
	}
	return s.ring.Expect(ctx, slices.Collect(maps.Keys(ids))...)
}

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
