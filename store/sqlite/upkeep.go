package sqlite

import (
	"context"
	"database/sql"
	"time"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/credential"
)

// ListCredentials implements access.UpkeepStore.
func (s *Store) ListCredentials(ctx context.Context, filter access.Filter, after access.Key, limit int) ([]access.Listed, error) {
	list, err := collect(ctx, s.read, s.queries.Get("access_list"), func(row scanner) (l access.Listed, err error) {
		var next, refreshed, expires sql.Null[int64]
		err = row.Scan(&l.UserID, &l.MCPServerID, &l.CredentialID, &l.TokenEndpoint, &l.State, &l.Verdict, &l.Failures,
			&next, stamp{&l.CreatedAt}, &refreshed, &expires)
		l.NextAttempt, l.LastRefreshedAt, l.AccessTokenExpiresAt = atMilliseconds(next), atMilliseconds(refreshed), atMilliseconds(expires)
		return l, err
	}, after.UserID, after.MCPServerID, limit, filter.UserID, filter.MCPServerID, string(filter.State))
	return list, failure("listing credentials", err)
}

// CountStates implements access.UpkeepStore.
func (s *Store) CountStates(ctx context.Context) (map[credential.State]int64, error) {
	counts := make(map[credential.State]int64)
	_, err := collect(ctx, s.read, s.queries.Get("access_count_states"), func(row scanner) (none struct{}, err error) {
		var state credential.State
		var n int64
		err = row.Scan(&state, &n)
		counts[state] = n
		return none, err
	})
	if err != nil {
		return nil, failure("counting credentials", err)
	}
	return counts, nil
}

// EndCoolDown implements access.UpkeepStore.
func (s *Store) EndCoolDown(ctx context.Context, filter access.Filter) (int64, error) {
	n, err := exec(ctx, s.write, s.queries.Get("access_end_cool_down"), filter.UserID, filter.MCPServerID)
	return n, failure("ending a cool-down", unlessDefinite(err))
}

// ScanAges implements access.UpkeepStore.
func (s *Store) ScanAges(ctx context.Context, after int64, limit int) ([]access.Age, error) {
	list, err := collect(ctx, s.read, s.queries.Get("access_ages"), func(row scanner) (a access.Age, err error) {
		var idle sql.Null[int64] // NULL where another program wrote what is no time
		err = row.Scan(&a.UserID, &a.MCPServerID, &a.CredentialID, &a.State, &idle)
		a.Idle = inTime(idle.V)
		return a, err
	}, after, limit)
	return list, failure("looking for idle credentials", err)
}

// ScanOrphans implements access.UpkeepStore.
func (s *Store) ScanOrphans(ctx context.Context, after access.Key, limit int) ([]access.Orphan, error) {
	list, err := collect(ctx, s.read, s.queries.Get("access_orphans"), func(row scanner) (o access.Orphan, err error) {
		return o, row.Scan(&o.UserID, &o.MCPServerID, &o.CredentialID, &o.Generation)
	}, after.UserID, after.MCPServerID, limit)
	return list, failure("looking for access tokens without a credential", err)
}

// afterLease is how long after its end a lease still counts as in force for
// DeleteOrphan.
const afterLease = time.Hour

// DeleteOrphan implements access.UpkeepStore.
func (s *Store) DeleteOrphan(ctx context.Context, o access.Orphan) (deleted bool, err error) {
	n, err := exec(ctx, s.write, s.queries.Get("access_delete_orphan"), o.UserID, o.MCPServerID, o.CredentialID, o.Generation, afterLease.Milliseconds())
	return n > 0, failure("deleting an access token without a credential", unlessDefinite(err))
}
