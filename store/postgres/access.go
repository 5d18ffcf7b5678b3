package postgres

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/store/internal/records"
)

// Look implements access.Store.
func (s *Store) Look(ctx context.Context, key access.Key) (protocol.Snapshot, error) {
	list, err := collectAlone(ctx, s, s.queries.Get("access_look"), scanSnapshot, key.UserID, key.MCPServerID)
	if err != nil || len(list) == 0 {
		return protocol.Snapshot{}, failure("reading access token", err)
	}
	return list[0], nil
}

func scanSnapshot(row pgx.CollectableRow) (p protocol.Snapshot, err error) {
	var remaining, next, forced *float64
	r := &p.Row
	err = row.Scan(&p.CredentialID, &p.TokenEndpoint, &r.Exists, &r.CredentialID, &r.Generation, &r.Holder, &r.LeaseMark, &r.LeaseRunning,
		&r.ResultGeneration, &r.AccessToken, &remaining, &r.Scope, &r.Rejected, &r.Writer, &r.Written, &r.Verdict, &r.Judged, &r.Failures,
		&next, &r.Forced, &forced)
	r.Expires = remaining != nil
	r.Remaining, r.NextAttempt, r.ForcedEnds = inTime(remaining), inTime(next), inTime(forced)
	return p, err
}

// inTime is a number of seconds; NULL is zero.
func inTime(seconds *float64) time.Duration {
	if seconds == nil {
		return 0
	}
	return time.Duration(*seconds * float64(time.Second))
}

// seconds is a time as a parameter; NULL is nil.
func seconds(d *time.Duration) any {
	if d == nil {
		return nil
	}
	return d.Seconds()
}

// ClaimLease implements access.Store.
func (s *Store) ClaimLease(ctx context.Context, key access.Key, holder string, lease time.Duration, c protocol.Claim) (generation int64, ok bool, err error) {
	err = s.write(ctx, func(db statements) error {
		generation, ok = 0, false
		err := db.QueryRow(ctx, s.queries.Get("access_claim"), key.UserID, key.MCPServerID, c.CredentialID, holder, lease.Seconds(),
			c.Generation, c.ResultGeneration, c.TakesOver, c.LeaseMark, c.Forced, protocol.ForcedWindow.Seconds()).Scan(&generation)
		ok = err == nil
		if errors.Is(err, pgx.ErrNoRows) {
			err = nil
		}
		return err
	})
	return generation, ok && err == nil, failure("claiming a lease", err)
}

// RenewLease implements access.Store.
func (s *Store) RenewLease(ctx context.Context, l access.Lease, lease time.Duration) (held bool, err error) {
	err = s.write(ctx, func(db statements) error {
		tag, err := db.Exec(ctx, s.queries.Get("access_renew"), l.UserID, l.MCPServerID, l.Generation, l.Holder, lease.Seconds())
		held = tag.RowsAffected() > 0
		return err
	})
	return held && err == nil, failure("renewing a lease", err)
}

// ReleaseLease implements access.Store.
func (s *Store) ReleaseLease(ctx context.Context, l access.Lease) error {
	return failure("releasing a lease", s.write(ctx, func(db statements) error {
		_, err := db.Exec(ctx, s.queries.Get("access_release"), l.UserID, l.MCPServerID, l.Generation, l.Holder)
		return err
	}))
}

// RejectToken implements access.Store.
func (s *Store) RejectToken(ctx context.Context, key access.Key, credentialID, result int64) error {
	return failure("rejecting an access token", s.write(ctx, func(db statements) error {
		_, err := db.Exec(ctx, s.queries.Get("access_reject"), key.UserID, key.MCPServerID, credentialID, result)
		return err
	}))
}

// WriteOutcome implements access.Store.
func (s *Store) WriteOutcome(ctx context.Context, l access.Lease, o *access.Outcome) (written protocol.Written, err error) {
	err = s.inTx(ctx, func(tx pgx.Tx) (err error) {
		written, err = s.writeOutcome(ctx, tx, l, o)
		return err
	})
	return written, failure("writing the outcome of a grant", err)
}

// writeOutcome takes the locks of the data keys first, as a deposit does, so that none of
// them is destroyed before the records are there and are counted, or cleared.
func (s *Store) writeOutcome(ctx context.Context, tx pgx.Tx, l access.Lease, o *access.Outcome) (protocol.Written, error) {
	for _, id := range o.DataKeys() {
		if err := s.lockEnabled(ctx, tx, "share_data_key", id); err != nil {
			return 0, err
		}
	}
	var row, generation, result int64
	err := tx.QueryRow(ctx, s.queries.Get("access_lock"), l.UserID, l.MCPServerID).Scan(&row, &generation, &result)
	switch {
	case errors.Is(err, pgx.ErrNoRows), err == nil && row != l.CredentialID:
		return protocol.Other, nil
	case err != nil:
		return 0, err
	}
	// The lock was had: only a statement after it sees what was committed before.
	credentials, err := collect(ctx, tx, s.queries.Get("access_credential"), scanRecords, l.UserID, l.MCPServerID, l.CredentialID)
	switch {
	case err != nil:
		return 0, err
	case len(credentials) == 0:
		return protocol.Other, nil
	case result > l.Generation, !o.Succeeded() && generation != l.Generation:
		return protocol.Fenced, nil
	case o.DependsOnRecords() && !credentials[0].equal(o.Old.RefreshTokenEnc, o.Old.ClientSecretEnc):
		return protocol.Changed, nil
	}
	if o.New != nil {
		tag, err := tx.Exec(ctx, s.queries.Get("access_rotate"), l.UserID, l.MCPServerID, l.CredentialID,
			o.New.RefreshTokenEnc, o.New.ClientSecretEnc, o.Old.RefreshTokenEnc, o.Old.ClientSecretEnc)
		if err != nil {
			return 0, err
		}
		if tag.RowsAffected() == 0 { // another writer was faster
			return protocol.Changed, nil
		}
	}
	return protocol.Stored, s.storeOutcome(ctx, tx, l, o)
}

func (s *Store) storeOutcome(ctx context.Context, tx pgx.Tx, l access.Lease, o *access.Outcome) error {
	var next any
	if o.NextAttempt > 0 {
		next = o.NextAttempt.Seconds()
	}
	if !o.Succeeded() {
		_, err := tx.Exec(ctx, s.queries.Get("access_fail"), l.UserID, l.MCPServerID, l.Generation, l.Holder, string(o.Verdict), o.Mark, next)
		return err
	}
	_, err := tx.Exec(ctx, s.queries.Get("access_store"), l.UserID, l.MCPServerID, l.Generation, l.Holder,
		o.AccessToken, seconds(o.ExpiresIn), o.Scope, o.New != nil, o.Mark, string(o.Verdict), next)
	return err
}

// recordPair is the records of a credential.
type recordPair struct{ refreshToken, clientSecret []byte }

func scanRecords(row pgx.CollectableRow) (e recordPair, err error) {
	return e, row.Scan(&e.refreshToken, &e.clientSecret)
}

func (e recordPair) equal(refreshToken, clientSecret []byte) bool {
	return bytes.Equal(e.refreshToken, refreshToken) && bytes.Equal(e.clientSecret, clientSecret) && (e.clientSecret == nil) == (clientSecret == nil)
}

// ScanTokens implements access.Store.
func (s *Store) ScanTokens(ctx context.Context, after access.Key, limit int) ([]access.Sealed, error) {
	if there, err := s.hasDisposable(ctx); err != nil || !there {
		return nil, failure("scanning access tokens", err)
	}
	list, err := collectSeeing(ctx, s, s.queries.Get("access_scan"), func(row pgx.CollectableRow) (t access.Sealed, err error) {
		return t, row.Scan(&t.UserID, &t.MCPServerID, &t.CredentialID, &t.TokenEndpoint, &t.Record)
	}, after.UserID, after.MCPServerID, int64(limit))
	return list, failure("scanning access tokens", err)
}

// hasDisposable reports whether the table of access tokens is there. In the schema of an
// older version it is not.
func (s *Store) hasDisposable(ctx context.Context) (there bool, err error) {
	err = s.scanAlone(ctx, s.queries.Get("table_exists"), []any{s.schema, records.Disposable().Name}, &there)
	return there, err
}

// countDisposable counts the records of access tokens.
func (s *Store) countDisposable(ctx context.Context, tx pgx.Tx) (n int64, err error) {
	there, err := s.disposableIn(ctx, tx)
	if err != nil || !there {
		return 0, err
	}
	return n, tx.QueryRow(ctx, s.records.CountAll(records.Disposable())).Scan(&n)
}

func (s *Store) disposableIn(ctx context.Context, tx pgx.Tx) (there bool, err error) {
	return there, tx.QueryRow(ctx, s.queries.Get("table_exists"), s.schema, records.Disposable().Name).Scan(&there)
}

// clearDisposable leaves no record of an access token under the data key, and returns how
// many are left all the same, as a trigger of somebody else may have it. The caller has
// locked the data key, so nobody writes one meanwhile.
func (s *Store) clearDisposable(ctx context.Context, tx pgx.Tx, id envelope.KeyID) (left int64, err error) {
	there, err := s.disposableIn(ctx, tx)
	if err != nil || !there {
		return 0, err
	}
	t := records.Disposable()
	if _, err := tx.Exec(ctx, s.records.Clear(t), slices.Clone(id[:])); err != nil {
		return 0, err
	}
	return left, tx.QueryRow(ctx, s.records.CountUnder(t), records.Header(id)).Scan(&left)
}
