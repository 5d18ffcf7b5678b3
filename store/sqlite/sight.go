package sqlite

import (
	"context"
	"database/sql"

	"github.com/lockwood-kms/lockwood/store"
)

// proveSight returns a *store.UnseenError unless the names of our tables are those of
// tables. SQLite has neither roles nor policies, so a table shows all of its rows; a
// view, or a temporary table of the same name, shows what it likes. tx reads one
// state of the schema to its end.
func (s *Store) proveSight(ctx context.Context, tx *sql.Tx) error {
	findings, err := collect(ctx, tx, s.queries.Get("sight"), func(row scanner) (f store.Finding, err error) {
		f.Condition = store.NotATable
		return f, row.Scan(&f.Object, &f.Detail)
	}, s.tables)
	if err == nil && len(findings) > 0 {
		err = &store.UnseenError{Findings: findings}
	}
	return err
}

// seeing runs f in a transaction that excludes every other writer, and sees every
// row of our tables; if that is not so, f does not run. Whatever is destroyed is
// looked for and destroyed in one.
func (s *Store) seeing(ctx context.Context, f func(*sql.Tx) error) error {
	return s.inTx(ctx, func(tx *sql.Tx) error {
		if err := s.proveSight(ctx, tx); err != nil {
			return err
		}
		return f(tx)
	})
}

// reading is seeing for what only reads, beside a writer.
func (s *Store) reading(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.read.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if err := s.proveSight(ctx, tx); err != nil {
		return err
	}
	return f(tx)
}

// collectSeeing is collect in a transaction of reading.
func collectSeeing[T any](ctx context.Context, s *Store, query string, scan func(scanner) (T, error), args ...any) (list []T, err error) {
	err = s.reading(ctx, func(tx *sql.Tx) error {
		list, err = collect(ctx, tx, query, scan, args...)
		return err
	})
	return list, err
}

// scanSeeing scans the one row of a query in a transaction of reading.
func (s *Store) scanSeeing(ctx context.Context, query string, args []any, dest ...any) error {
	return s.reading(ctx, func(tx *sql.Tx) error { return tx.QueryRowContext(ctx, query, args...).Scan(dest...) })
}
