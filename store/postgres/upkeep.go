package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/credential"
)

// ListCredentials implements access.UpkeepStore.
func (s *Store) ListCredentials(ctx context.Context, filter access.Filter, after access.Key, limit int) ([]access.Listed, error) {
	list, err := collectAlone(ctx, s, s.queries.Get("access_list"), func(row pgx.CollectableRow) (l access.Listed, err error) {
		err = row.Scan(&l.UserID, (*string)(&l.MCPServerID), &l.CredentialID, (*string)(&l.TokenEndpoint), &l.State, &l.Verdict, &l.Failures,
			&l.NextAttempt, &l.CreatedAt, &l.LastRefreshedAt, &l.AccessTokenExpiresAt)
		toUTC(&l.CreatedAt, l.NextAttempt, l.LastRefreshedAt, l.AccessTokenExpiresAt)
		return l, err
	}, after.UserID, after.MCPServerID, int64(limit), filter.UserID, filter.MCPServerID, string(filter.State))
	return list, failure("listing credentials", err)
}

// CountStates implements access.UpkeepStore.
func (s *Store) CountStates(ctx context.Context) (map[credential.State]int64, error) {
	type count struct {
		state credential.State
		n     int64
	}
	list, err := collectAlone(ctx, s, s.queries.Get("access_count_states"), func(row pgx.CollectableRow) (c count, err error) {
		return c, row.Scan(&c.state, &c.n)
	})
	if err != nil {
		return nil, failure("counting credentials", err)
	}
	counts := make(map[credential.State]int64)
	for _, c := range list {
		counts[c.state] = c.n
	}
	return counts, nil
}

// EndCoolDown implements access.UpkeepStore.
func (s *Store) EndCoolDown(ctx context.Context, filter access.Filter) (n int64, err error) {
	err = s.write(ctx, func(db statements) error {
		tag, err := db.Exec(ctx, s.queries.Get("access_end_cool_down"), filter.UserID, filter.MCPServerID)
		n = tag.RowsAffected()
		return err
	})
	return n, failure("ending a cool-down", err)
}

// ScanAges implements access.UpkeepStore.
func (s *Store) ScanAges(ctx context.Context, after int64, limit int) ([]access.Age, error) {
	list, err := collectAlone(ctx, s, s.queries.Get("access_ages"), func(row pgx.CollectableRow) (a access.Age, err error) {
		var idle *float64
		err = row.Scan(&a.UserID, &a.MCPServerID, &a.CredentialID, &a.State, &idle)
		a.Idle = inTime(idle)
		return a, err
	}, after, int64(limit))
	return list, failure("looking for idle credentials", err)
}

// ScanOrphans implements access.UpkeepStore.
func (s *Store) ScanOrphans(ctx context.Context, after access.Key, limit int) ([]access.Orphan, error) {
	list, err := collectAlone(ctx, s, s.queries.Get("access_orphans"), func(row pgx.CollectableRow) (o access.Orphan, err error) {
		return o, row.Scan(&o.UserID, &o.MCPServerID, &o.CredentialID, &o.Generation)
	}, after.UserID, after.MCPServerID, int64(limit))
	return list, failure("looking for access tokens without a credential", err)
}

// afterLease is how long after its end a lease still counts as in force for
// DeleteOrphan.
const afterLease = time.Hour

// DeleteOrphan implements access.UpkeepStore.
func (s *Store) DeleteOrphan(ctx context.Context, o access.Orphan) (deleted bool, err error) {
	err = s.write(ctx, func(db statements) error {
		tag, err := db.Exec(ctx, s.queries.Get("access_delete_orphan"), o.UserID, o.MCPServerID, o.CredentialID, o.Generation, afterLease.Seconds())
		deleted = tag.RowsAffected() > 0
		return err
	})
	return deleted, failure("deleting an access token without a credential", err)
}
