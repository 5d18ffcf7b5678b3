package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/store/internal/records"
)

// Look implements access.Store.
func (s *Store) Look(ctx context.Context, key access.Key) (protocol.Snapshot, error) {
	p, err := scanSnapshot(s.read.QueryRowContext(ctx, s.queries.Get("access_look"), key.UserID, key.MCPServerID))
	if errors.Is(err, sql.ErrNoRows) {
		return protocol.Snapshot{}, nil
	}
	return p, failure("reading access token", err)
}

func scanSnapshot(row scanner) (p protocol.Snapshot, err error) {
	var remaining, next, forced sql.Null[int64]
	r := &p.Row
	err = row.Scan(&p.CredentialID, &p.TokenEndpoint, &r.Exists, &r.CredentialID, &r.Generation, &r.Holder, &r.LeaseMark, &r.LeaseRunning,
		&r.ResultGeneration, &r.AccessToken, &remaining, &r.Scope, &r.Rejected, &r.Writer, &r.Written, &r.Verdict, &r.Judged, &r.Failures,
		&next, &r.Forced, &forced)
	r.Expires = remaining.Valid
	r.Remaining, r.NextAttempt, r.ForcedEnds = inTime(remaining.V), inTime(next.V), inTime(forced.V)
	return p, err
}

// inTime is a number of milliseconds.
func inTime(milliseconds int64) time.Duration { return time.Duration(milliseconds) * time.Millisecond }

// milliseconds is a time as a parameter; nil is NULL.
func milliseconds(d *time.Duration) any {
	if d == nil {
		return nil
	}
	return d.Milliseconds()
}

// errNotClaimed undoes the transaction of a claim that found another row.
var errNotClaimed = errors.New("the row is not as it was read")

// ClaimLease implements access.Store.
func (s *Store) ClaimLease(ctx context.Context, key access.Key, holder string, lease time.Duration, c protocol.Claim) (generation int64, ok bool, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		if err := tx.QueryRowContext(ctx, s.queries.Get("access_next_generation")).Scan(&generation); err != nil {
			return err
		}
		n, err := exec(ctx, tx, s.queries.Get("access_claim"), key.UserID, key.MCPServerID, c.CredentialID, holder, lease.Milliseconds(),
			c.Generation, c.ResultGeneration, c.TakesOver, c.LeaseMark, c.Forced, protocol.ForcedWindow.Milliseconds(), generation)
		if err == nil && n == 0 {
			err = errNotClaimed
		}
		return err
	})
	if errors.Is(err, errNotClaimed) {
		return 0, false, nil
	}
	return generation, err == nil, failure("claiming a lease", err)
}

// RenewLease implements access.Store.
func (s *Store) RenewLease(ctx context.Context, l access.Lease, lease time.Duration) (held bool, err error) {
	n, err := exec(ctx, s.write, s.queries.Get("access_renew"), l.UserID, l.MCPServerID, l.Generation, l.Holder, lease.Milliseconds())
	return n > 0, failure("renewing a lease", unlessDefinite(err))
}

// ReleaseLease implements access.Store.
func (s *Store) ReleaseLease(ctx context.Context, l access.Lease) error {
	_, err := exec(ctx, s.write, s.queries.Get("access_release"), l.UserID, l.MCPServerID, l.Generation, l.Holder)
	return failure("releasing a lease", unlessDefinite(err))
}

// RejectToken implements access.Store.
func (s *Store) RejectToken(ctx context.Context, key access.Key, credentialID, result int64) error {
	_, err := exec(ctx, s.write, s.queries.Get("access_reject"), key.UserID, key.MCPServerID, credentialID, result)
	return failure("rejecting an access token", unlessDefinite(err))
}

// WriteOutcome implements access.Store.
func (s *Store) WriteOutcome(ctx context.Context, l access.Lease, o *access.Outcome) (written protocol.Written, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) (err error) {
		written, err = s.writeOutcome(ctx, tx, l, o)
		return err
	})
	return written, failure("writing the outcome of a grant", err)
}

// writeOutcome is in a transaction that is the only writer from its start, which is all
// the locking there is.
func (s *Store) writeOutcome(ctx context.Context, tx *sql.Tx, l access.Lease, o *access.Outcome) (protocol.Written, error) {
	for _, id := range o.DataKeys() {
		if err := s.requireEnabled(ctx, tx, id); err != nil {
			return 0, err
		}
	}
	var row, generation, result int64
	err := tx.QueryRowContext(ctx, s.queries.Get("access_lock"), l.UserID, l.MCPServerID).Scan(&row, &generation, &result)
	switch {
	case errors.Is(err, sql.ErrNoRows), err == nil && row != l.CredentialID:
		return protocol.Other, nil
	case err != nil:
		return 0, err
	}
	var refreshToken, clientSecret []byte
	err = tx.QueryRowContext(ctx, s.queries.Get("access_credential"), l.UserID, l.MCPServerID, l.CredentialID).Scan(&refreshToken, &clientSecret)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return protocol.Other, nil
	case err != nil:
		return 0, err
	case result > l.Generation, !o.Succeeded() && generation != l.Generation:
		return protocol.Fenced, nil
	case o.DependsOnRecords() && !(bytes.Equal(refreshToken, o.Old.RefreshTokenEnc) && sameRecord(clientSecret, o.Old.ClientSecretEnc)):
		return protocol.Changed, nil
	}
	if o.New != nil {
		if _, err := exec(ctx, tx, s.queries.Get("access_rotate"), l.UserID, l.MCPServerID, l.CredentialID,
			o.New.RefreshTokenEnc, orNull(o.New.ClientSecretEnc), o.Old.RefreshTokenEnc, orNull(o.Old.ClientSecretEnc)); err != nil {
			return 0, err
		}
	}
	return protocol.Stored, s.storeOutcome(ctx, tx, l, o)
}

// sameRecord compares what may be absent.
func sameRecord(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

func (s *Store) storeOutcome(ctx context.Context, tx *sql.Tx, l access.Lease, o *access.Outcome) error {
	var next any
	if o.NextAttempt > 0 {
		next = o.NextAttempt.Milliseconds()
	}
	if !o.Succeeded() {
		_, err := exec(ctx, tx, s.queries.Get("access_fail"), l.UserID, l.MCPServerID, l.Generation, l.Holder, string(o.Verdict), orNull(o.Mark), next)
		return err
	}
	_, err := exec(ctx, tx, s.queries.Get("access_store"), l.UserID, l.MCPServerID, l.Generation, l.Holder,
		orNull(o.AccessToken), milliseconds(o.ExpiresIn), o.Scope, o.New != nil, orNull(o.Mark), string(o.Verdict), next)
	return err
}

// ScanTokens implements access.Store.
func (s *Store) ScanTokens(ctx context.Context, after access.Key, limit int) ([]access.Sealed, error) {
	list, err := collectSeeing(ctx, s, s.queries.Get("access_scan"), func(row scanner) (t access.Sealed, err error) {
		return t, row.Scan(&t.UserID, &t.MCPServerID, &t.CredentialID, &t.TokenEndpoint, &t.Record)
	}, after.UserID, after.MCPServerID, limit)
	if isMissing(err) { // in the schema of an older version
		return nil, nil
	}
	return list, failure("scanning access tokens", err)
}

// countDisposable counts the records of access tokens.
func (s *Store) countDisposable(ctx context.Context, tx *sql.Tx) (n int64, err error) {
	err = tx.QueryRowContext(ctx, s.records.CountAll(records.Disposable())).Scan(&n)
	if isMissing(err) {
		return 0, nil
	}
	return n, err
}

// clearDisposable leaves no record of an access token under the data key, and returns how
// many are left all the same, as a trigger of somebody else may have it.
func (s *Store) clearDisposable(ctx context.Context, tx *sql.Tx, id envelope.KeyID) (left int64, err error) {
	t := records.Disposable()
	if _, err := exec(ctx, tx, s.records.Clear(t), id[:]); isMissing(err) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	return left, tx.QueryRowContext(ctx, s.records.CountUnder(t), records.Header(id)).Scan(&left)
}
