package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/internal/records"
)

// Upsert implements credential.Store. It returns store.ErrLegacyClosed for a
// legacy record where those are refused.
func (s *Store) Upsert(ctx context.Context, row *credential.Row, under envelope.KeyID, quota int) error {
	var key any // NULL for legacy records
	if !under.IsZero() {
		key = under[:]
	}
	n, err := exec(ctx, s.write, s.queries.Get("upsert"),
		row.UserID, row.MCPServerID, row.RefreshTokenEnc, row.ClientID, orNull(row.ClientSecretEnc), inUTC(row.ClientSecretExpiresAt),
		row.TokenEndpoint, row.TokenEndpointAuthMethod, row.Scopes, key, quota)
	if err == nil && n == 0 {
		return failure("writing credential", s.whyNothing(ctx, under))
	}
	return failure("writing credential", unlessDefinite(err))
}

// whyNothing returns why an upsert under the key wrote nothing. If the key is enabled
// still, it was so then, since it never is again once it was not.
func (s *Store) whyNothing(ctx context.Context, under envelope.KeyID) error {
	if !under.IsZero() {
		if err := s.requireEnabled(ctx, s.read, under); err != nil {
			return err
		}
	}
	return credential.ErrQuotaExceeded
}

// orNull returns b, or NULL for nil, which the driver would take for an empty
// value.
func orNull(b []byte) any {
	if b == nil {
		return nil
	}
	return b
}

func inUTC(t *time.Time) any {
	if t == nil {
		return nil
	}
	return t.UTC()
}

// Get implements credential.Store.
func (s *Store) Get(ctx context.Context, userID int64, mcpServerID string) (*credential.Row, error) {
	row, err := scanRow(s.read.QueryRowContext(ctx, s.queries.Get("get"), userID, mcpServerID))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, credential.ErrNotFound
	}
	if err != nil {
		return nil, failure("reading credential", err)
	}
	return &row, nil
}

// List implements credential.Store.
func (s *Store) List(ctx context.Context, userID int64, after *string, limit int) ([]credential.Listed, error) {
	list, err := collect(ctx, s.read, s.queries.Get("list"), scanListed, userID, after, limit)
	return list, failure("listing credentials", err)
}

// Delete implements credential.Store.
func (s *Store) Delete(ctx context.Context, userID int64, mcpServerID string) (existed bool, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		if _, err := exec(ctx, tx, s.queries.Get("access_forget"), userID, mcpServerID); err != nil {
			return unlessDefinite(err)
		}
		n, err := exec(ctx, tx, s.queries.Get("delete"), userID, mcpServerID)
		if existed = n > 0; err != nil || existed {
			return unlessDefinite(err)
		}
		// There is no such row, or something stands in the table's place: then a client
		// that is told that its credential is gone would be told wrong.
		if err := s.proveSight(ctx, tx); err != nil {
			return err
		}
		_, err = scanRow(tx.QueryRowContext(ctx, s.queries.Get("get"), userID, mcpServerID))
		switch {
		case err == nil:
			return store.Undone(credential.Table)
		case errors.Is(err, sql.ErrNoRows):
			return nil
		}
		return err
	})
	return existed && err == nil, failure("deleting credential", err)
}

// Scan implements credential.Store.
func (s *Store) Scan(ctx context.Context, after int64, limit int) ([]credential.Row, error) {
	rows, err := collectSeeing(ctx, s, s.queries.Get("scan"), scanRow, after, limit)
	return rows, failure("scanning credentials", err)
}

// Counts implements credential.Store.
func (s *Store) Counts(ctx context.Context) (credential.Counts, error) {
	var tally records.Tally
	err := s.reading(ctx, func(tx *sql.Tx) (err error) {
		for _, t := range records.Tables() {
			if err := s.count(ctx, tx, t, &tally); err != nil {
				return err
			}
		}
		tally.Counts.Disposable, err = s.countDisposable(ctx, tx)
		return err
	})
	if err != nil {
		return credential.Counts{}, failure("counting records", err)
	}
	return tally.Counts, nil
}

func (s *Store) count(ctx context.Context, tx *sql.Tx, t records.Table, tally *records.Tally) error {
	_, err := collect(ctx, tx, s.records.Count(t), func(row scanner) (none struct{}, err error) {
		if err := row.Scan(tally.Line(t)...); err != nil {
			return none, err
		}
		tally.Add(t)
		return none, nil
	})
	return err
}

func scanRow(row scanner) (r credential.Row, err error) {
	err = row.Scan(&r.ID, &r.UserID, &r.MCPServerID, &r.RefreshTokenEnc, &r.ClientID, &r.ClientSecretEnc,
		optionalStamp{&r.ClientSecretExpiresAt}, &r.TokenEndpoint, &r.TokenEndpointAuthMethod, &r.Scopes,
		stamp{&r.CreatedAt}, stamp{&r.UpdatedAt})
	r.HasClientSecret = r.ClientSecretEnc != nil
	return r, err
}

// scanBoundRow is scanRow for what a record is bound to.
func scanBoundRow(row scanner) (r credential.Row, err error) {
	err = row.Scan(&r.ID, &r.UserID, &r.MCPServerID, &r.RefreshTokenEnc, &r.ClientID, &r.ClientSecretEnc, &r.TokenEndpoint, &r.TokenEndpointAuthMethod)
	r.HasClientSecret = r.ClientSecretEnc != nil
	return r, err
}

func scanListed(row scanner) (l credential.Listed, err error) {
	var refreshed, expires sql.Null[int64]
	err = row.Scan(&l.MCPServerID, &l.ClientID, &l.HasClientSecret,
		optionalStamp{&l.ClientSecretExpiresAt}, &l.TokenEndpoint, &l.TokenEndpointAuthMethod, &l.Scopes,
		stamp{&l.CreatedAt}, stamp{&l.UpdatedAt}, &l.State, &refreshed, &expires)
	l.LastRefreshedAt, l.AccessTokenExpiresAt = atMilliseconds(refreshed), atMilliseconds(expires)
	return l, err
}

// atMilliseconds is a time in milliseconds since 1970, nil for NULL.
func atMilliseconds(n sql.Null[int64]) *time.Time {
	if !n.Valid {
		return nil
	}
	return new(time.UnixMilli(n.V).UTC())
}
