package postgres

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/store"
)

// seeing runs f in a transaction that sees every row of the credential table and of
// Lockwood's tables, and reaches each with an UPDATE or DELETE. If that cannot be
// proven, f does not run and the error is a *store.UnseenError. Whatever counts or
// looks before something is destroyed runs in one.
//
// A count of zero is worth nothing while row-level security may hide rows, and
// PostgreSQL hides them without a word. The proof has three parts:
//
//   - Each name is that of a table without rules. A view, or a rule, shows what it
//     likes, and no setting of a session tells.
//   - With row_security off, the server fails a statement, with SQLSTATE 42501, whose
//     rows a policy would filter (PostgreSQL manual, "row_security"). That is a
//     judgement at each statement, so it holds also for a role that loses BYPASSRLS
//     in between.
//   - The server does so also where a policy lets every row through, as USING (true)
//     does. There row_security stays on and the policies are read: see sight.sql.
//     The proof then rests on nothing that can change without a lock on the table.
//     Policies, rules, owner, row security and the name itself cannot change while
//     the transaction holds ACCESS SHARE on it, since each of these changes takes
//     ACCESS EXCLUSIVE. Memberships of roles take no lock, and are not relied on.
//
// row_security_active alone would not do: it is true under USING (true), and false
// for a view.
func (s *Store) seeing(ctx context.Context, f func(pgx.Tx) error) error {
	return s.begun(ctx, beginTx+"; SET LOCAL row_security = off", func(tx pgx.Tx) error {
		if err := s.proveSight(ctx, tx); err != nil {
			return err
		}
		return f(tx)
	})
}

// collectSeeing is collect in a transaction of seeing.
func collectSeeing[T any](ctx context.Context, s *Store, sql string, scan pgx.RowToFunc[T], args ...any) (list []T, err error) {
	err = s.seeing(ctx, func(tx pgx.Tx) error {
		list, err = collect(ctx, tx, sql, scan, args...)
		return err
	})
	return list, err
}

// scanSeeing scans the one row of a query in a transaction of seeing.
func (s *Store) scanSeeing(ctx context.Context, sql string, args []any, dest ...any) error {
	return s.seeing(ctx, func(tx pgx.Tx) error { return tx.QueryRow(ctx, sql, args...).Scan(dest...) })
}

// relation is a line of sight.sql.
type relation struct {
	Name, Kind, Role             string
	Ruled, Filtered, Owned, Open bool
}

// proveSight returns a *store.UnseenError if not every row can be seen in tx, in which
// row_security is off.
func (s *Store) proveSight(ctx context.Context, tx pgx.Tx) error {
	found, err := s.lockedRelations(ctx, tx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(found, func(r relation) bool { return r.Filtered }) {
		return nil
	}
	_, err = tx.Exec(ctx, "SET LOCAL row_security = on")
	return err
}

// lockedRelations returns the relations under our names as they are under locks on
// them, or a *store.UnseenError. It locks at first what was there the last time.
func (s *Store) lockedRelations(ctx context.Context, tx pgx.Tx) ([]relation, error) {
	var locked []string
	if last := s.lockedLast.Load(); last != nil {
		locked = *last
	}
	for {
		if err := s.lockRelations(ctx, tx, locked); err != nil {
			s.lockedLast.Store(nil)
			return nil, err
		}
		found, err := s.relations(ctx, tx)
		if err != nil {
			return nil, err
		}
		if findings := s.unseen(found); len(findings) > 0 {
			return nil, &store.UnseenError{Findings: findings}
		}
		names := make([]string, len(found))
		for i, r := range found {
			names[i] = s.table(r.Name)
		}
		if slices.Equal(names, locked) {
			s.lockedLast.Store(&locked)
			return found, nil
		}
		locked = names
	}
}

func (s *Store) relations(ctx context.Context, tx pgx.Tx) ([]relation, error) {
	rows, err := tx.Query(ctx, s.queries.Get("sight"), s.schema, s.tables)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[relation])
}

func (s *Store) lockRelations(ctx context.Context, tx pgx.Tx, names []string) error {
	if len(names) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, "LOCK TABLE "+strings.Join(names, ", ")+" IN ACCESS SHARE MODE")
	return err
}

// unseen returns why rows of the relations may not be seen.
func (s *Store) unseen(list []relation) (findings []store.Finding) {
	add := func(c store.Condition, r relation, detail string) {
		findings = append(findings, store.Finding{Condition: c, Object: s.table(r.Name), Detail: detail, Role: r.Role})
	}
	filtered := slices.ContainsFunc(list, func(r relation) bool { return r.Filtered })
	for _, r := range list {
		if kind, ok := notTables[r.Kind]; ok {
			add(store.NotATable, r, kind)
			continue
		}
		if r.Ruled {
			add(store.Rewritten, r, "rules")
		}
		// Where row_security has to be on for one table, it is no guard of another.
		if filtered && !r.Owned && !r.Open {
			add(store.RowsHidden, r, "")
		}
	}
	return findings
}

// notTables are the kinds of relations that are no tables (pg_class.relkind).
var notTables = map[string]string{"v": "view", "m": "materialized view", "f": "foreign table"}
