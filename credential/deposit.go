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

// sealAttempts bounds how often a deposit seals anew because its data key was
// destroyed under it; once is rare already.
const sealAttempts = 3

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
	under, err := seal(ctx, s.ring, row, d)
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

// SealRotated returns a copy of row, which c is, opened, with the records of a refresh
// token that a token endpoint answered with in place of c's, both under one data key of the
// sealer's. It writes nothing. The errors are those of the sealer, and envelope.ErrNUL.
func (s *Service) SealRotated(ctx context.Context, with Sealer, row *Row, c *Credential, refreshToken core.Secret) (*Row, error) {
	fresh := *row
	_, err := seal(ctx, with, &fresh, &Deposit{RefreshToken: refreshToken, ClientSecret: c.ClientSecret})
	if err != nil {
		return nil, fmt.Errorf("sealing refresh token: %w", err)
	}
	return &fresh, nil
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
		again, err := seal(ctx, s.ring, row, d)
		if err != nil {
			return under, fmt.Errorf("sealing anew: %w", err)
		}
		under = again
	}
}

// seal seals both secrets of d into row, under one data key.
func seal(ctx context.Context, with Sealer, row *Row, d *Deposit) (envelope.KeyID, error) {
	buf := aadBuffers.Get().(*[]byte)
	defer aadBuffers.Put(buf)
	for range sealAttempts {
		var err error
		row.RefreshTokenEnc, err = sealColumn(ctx, with, buf, row, RefreshTokenColumn, []byte(d.RefreshToken))
		if err != nil {
			return envelope.KeyID{}, err
		}
		under, _ := envelope.ParseHeader(row.RefreshTokenEnc)
		if d.ClientSecret == nil {
			return under, nil
		}
		row.ClientSecretEnc, err = sealColumn(ctx, with, buf, row, ClientSecretColumn, []byte(*d.ClientSecret))
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

func sealColumn(ctx context.Context, with Sealer, buf *[]byte, row *Row, column string, plaintext []byte) ([]byte, error) {
	aad, err := AppendAAD(*buf, column, row.UserID, &row.Metadata)
	if err != nil {
		return nil, err
	}
	*buf = aad
	dst := make([]byte, 0, len(plaintext)+envelope.Overhead)
	return with.Seal(ctx, dst, plaintext, aad)
}

// aadBuffers holds buffers for aad, which is no secret.
var aadBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, 512)
	return &b
}}

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
