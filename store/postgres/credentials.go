package postgres

import (
	"cmp"
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/internal/records"
)

// Upsert implements credential.Store. It returns store.ErrLegacyClosed for a
// legacy record where those are refused.
func (s *Store) Upsert(ctx context.Context, row *credential.Row, under envelope.KeyID, quota int) error {
	var key []byte // NULL for legacy records
	if !under.IsZero() {
		key = under[:]
	}
	args := []any{
		row.UserID, row.MCPServerID, row.RefreshTokenEnc, row.ClientID, row.ClientSecretEnc, row.ClientSecretExpiresAt,
		row.TokenEndpoint, row.TokenEndpointAuthMethod, row.Scopes, key, int64(quota),
	}
	var written bool
	err := s.write(ctx, func(db statements) (err error) {
		written, err = s.upsert(ctx, db, args)
		return err
	})
	if err == nil && !written {
		err = keyring.ErrNotEnabled
	}
	return failure("writing credential", err)
}

// upsert writes the row and reports whether it did. Unnamed, the function is cheaper
// than the statement, since its plan is kept.
func (s *Store) upsert(ctx context.Context, db statements, args []any) (written bool, err error) {
	if db.mode == named {
		tag, err := db.Exec(ctx, s.queries.Get("upsert_prepared"), args...)
		return tag.RowsAffected() > 0, err
	}
	err = db.QueryRow(ctx, s.queries.Get("upsert"), args...).Scan(&written)
	return written, err
}

// write runs f, which writes in one statement, and sends none before it that leaves
// anything behind. The error is core.ErrOutcomeUnknown if the statement may have
// taken effect all the same.
func (s *Store) write(ctx context.Context, f func(statements) error) error {
	return s.prepared(func(mode pgx.QueryExecMode) error {
		conn, err := s.pool.Acquire(ctx) // apart from the statement, so that it is known that none was sent
		if err != nil {
			return err
		}
		defer conn.Release()
		err = unlessDefinite(repeated(ctx, func() error { return f(statements{conn, mode}) }))
		return cmp.Or(err, replicated(conn.Conn()))
	})
}

// Get implements credential.Store.
func (s *Store) Get(ctx context.Context, userID int64, mcpServerID string) (*credential.Row, error) {
	rows, err := collectAlone(ctx, s, s.queries.Get("get"), scanRow, userID, mcpServerID)
	if err != nil {
		return nil, failure("reading credential", err)
	}
	if len(rows) == 0 {
		return nil, credential.ErrNotFound
	}
	return &rows[0], nil
}

// List implements credential.Store.
func (s *Store) List(ctx context.Context, userID int64, after *string, limit int) ([]credential.Listed, error) {
	list, err := collectAlone(ctx, s, s.queries.Get("list"), scanListed, userID, after, int64(limit))
	return list, failure("listing credentials", err)
}

// Delete implements credential.Store.
func (s *Store) Delete(ctx context.Context, userID int64, mcpServerID string) (existed bool, err error) {
	err = s.write(ctx, func(db statements) error {
		tag, err := db.Exec(ctx, s.queries.Get("delete"), userID, mcpServerID)
		existed = tag.RowsAffected() > 0
		return err
	})
	if err == nil && !existed {
		// There is no such row, or it is hidden: then a client that is told that its
		// credential is gone would be told wrong.
		err = s.seeing(ctx, func(tx pgx.Tx) (err error) {
			existed, err = s.deleteSeen(ctx, tx, userID, mcpServerID)
			return err
		})
	}
	return existed && err == nil, failure("deleting credential", err)
}

// deleteSeen deletes the row, in a transaction that sees it if it is there.
func (s *Store) deleteSeen(ctx context.Context, tx pgx.Tx, userID int64, mcpServerID string) (existed bool, err error) {
	tag, err := tx.Exec(ctx, s.queries.Get("delete"), userID, mcpServerID)
	if err != nil || tag.RowsAffected() > 0 {
		return err == nil, err
	}
	left, err := collect(ctx, tx, s.queries.Get("get"), scanRow, userID, mcpServerID)
	if err == nil && len(left) > 0 {
		err = store.Undone(s.table(credential.Table)) // by a trigger
	}
	return false, err
}

// Scan implements credential.Store.
func (s *Store) Scan(ctx context.Context, after int64, limit int) ([]credential.Row, error) {
	rows, err := collectSeeing(ctx, s, s.queries.Get("scan"), scanRow, after, int64(limit))
	return rows, failure("scanning credentials", err)
}

// Counts implements credential.Store.
func (s *Store) Counts(ctx context.Context) (credential.Counts, error) {
	var tally records.Tally
	err := s.seeing(ctx, func(tx pgx.Tx) (err error) {
		tally = records.Tally{} // of this transaction
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

func (s *Store) count(ctx context.Context, tx pgx.Tx, t records.Table, tally *records.Tally) error {
	rows, err := tx.Query(ctx, s.records.Count(t))
	if err != nil {
		return err
	}
	_, err = pgx.ForEachRow(rows, tally.Line(t), func() error {
		tally.Add(t)
		return nil
	})
	return err
}

func scanRow(row pgx.CollectableRow) (r credential.Row, err error) {
	var place pgtype.TID
	var writer uint32
	err = row.Scan(&r.ID, &r.UserID, &r.MCPServerID, &r.RefreshTokenEnc, &r.ClientID, &r.ClientSecretEnc,
		&r.ClientSecretExpiresAt, &r.TokenEndpoint, &r.TokenEndpointAuthMethod, &r.Scopes, &r.CreatedAt, &r.UpdatedAt, &place, &writer)
	r.Revision = revision(place, writer)
	r.HasClientSecret = r.ClientSecretEnc != nil
	inUTC(&r.Metadata)
	return r, err
}

// scanBoundRow is scanRow for what a record is bound to.
func scanBoundRow(row pgx.CollectableRow) (r credential.Row, err error) {
	var place pgtype.TID
	var writer uint32
	err = row.Scan(&r.ID, &r.UserID, &r.MCPServerID, &r.RefreshTokenEnc, &r.ClientID, &r.ClientSecretEnc,
		&r.TokenEndpoint, &r.TokenEndpointAuthMethod, &place, &writer)
	r.Revision = revision(place, writer)
	r.HasClientSecret = r.ClientSecretEnc != nil
	return r, err
}

// revision is a row's credential.Row.Revision: where its version lies, and which
// transaction wrote it.
func revision(place pgtype.TID, writer uint32) [2]uint64 {
	return [2]uint64{uint64(place.BlockNumber)<<16 | uint64(place.OffsetNumber), uint64(writer)}
}

func scanListed(row pgx.CollectableRow) (l credential.Listed, err error) {
	err = row.Scan(&l.MCPServerID, &l.ClientID, &l.HasClientSecret,
		&l.ClientSecretExpiresAt, &l.TokenEndpoint, &l.TokenEndpointAuthMethod, &l.Scopes, &l.CreatedAt, &l.UpdatedAt,
		&l.State, &l.LastRefreshedAt, &l.AccessTokenExpiresAt)
	inUTC(&l.Metadata)
	toUTC(l.LastRefreshedAt, l.AccessTokenExpiresAt)
	return l, err
}

// inUTC puts the times, which come in the zone of this machine, into UTC.
func inUTC(m *credential.Metadata) { toUTC(&m.CreatedAt, &m.UpdatedAt, m.ClientSecretExpiresAt) }

func toUTC(times ...*time.Time) {
	for _, t := range times {
		if t != nil {
			*t = t.UTC()
		}
	}
}
