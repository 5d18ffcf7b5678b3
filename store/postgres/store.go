package postgres

import (
	"cmp"
	"context"
	"embed"
	"fmt"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/internal/migration"
	"github.com/lockwood-kms/lockwood/store/internal/records"
	"github.com/lockwood-kms/lockwood/store/internal/sqltext"
)

//go:embed queries/*.sql
var queryFiles embed.FS

// Store is a store in PostgreSQL. It is safe for concurrent use.
type Store struct {
	pool    *pgxpool.Pool
	weak    []store.Finding // what the configuration of the connection lacks
	schema  string          // as configured
	quoted  string          // as written in SQL
	queries sqltext.Set
	// What the migrations make: the highest version, and all tables and functions.
	version   int64
	tables    []string
	functions migration.Functions
	records   records.Dialect
	// The tables that a transaction of seeing locked last.
	lockedLast atomic.Pointer[[]string]
	preparing  *preparing
	// The statement of Reseal.
	resealUpdate string
}

var _ store.Store = (*Store)(nil)

// Open prepares a store without connecting, so that a service can start while
// its database is down. The errors are those of a configuration that can never
// work; none repeats the URL.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	s, err := open(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("opening PostgreSQL store: %w", err)
	}
	return s, nil
}

func open(ctx context.Context, cfg Config) (*Store, error) {
	schema, err := cfg.schema()
	if err != nil {
		return nil, err
	}
	settings, err := cfg.pool()
	if err != nil {
		return nil, err
	}
	quoted := pgx.Identifier{schema}.Sanitize()
	queries, err := sqltext.Load(queryFiles, "queries", append(records.Placeholders(), "{{schema}}", quoted)...)
	if err != nil {
		return nil, err
	}
	version, tables, err := migration.Made(migrationFiles, "migrations")
	if err != nil {
		return nil, err
	}
	functions, err := migration.LoadFunctions(migrationFiles, "migrations")
	if err != nil {
		return nil, err
	}
	preparing, err := cfg.newPreparing()
	if err != nil {
		return nil, err
	}
	weak := cfg.weakTLS(settings)
	leave := leaveReadOnly(settings)
	pool, err := pgxpool.NewWithConfig(ctx, settings)
	if err != nil {
		return nil, errURL
	}
	leave(pool)
	s := &Store{
		pool:      pool,
		weak:      weak,
		schema:    schema,
		quoted:    quoted,
		queries:   queries,
		preparing: preparing,
		version:   version,
		tables:    tables, functions: functions,
		records: records.Dialect{Schema: quoted + ".", Hex: `E'\\x%s'::bytea`, Among: "%s = ANY ($1::bytea[])"},
	}
	s.resealUpdate = resealSQL(s.records, records.Credentials())
	return s, nil
}

// Close closes all connections, and waits for those in use.
func (s *Store) Close() { s.pool.Close() }

// Ping implements store.Store.
func (s *Store) Ping(ctx context.Context) error {
	return failure("reaching the database", s.pool.Ping(ctx))
}

// BinaryColumns implements store.Store.
func (s *Store) BinaryColumns(ctx context.Context) ([]credential.Column, error) {
	columns, err := collectAlone(ctx, s, s.queries.Get("binary_columns"), pgx.RowToStructByPos[credential.Column], s.schema)
	return columns, failure("reading the schema", err)
}

// table returns the name of a table of the schema as it is written in SQL.
func (s *Store) table(name string) string { return pgx.Identifier{s.schema, name}.Sanitize() }

// beginTx begins a transaction in one round trip.
//
// Each of its statements sees what was committed before that statement: whatever
// the server's default is, a count that follows a lock has to see what was written
// before the lock was to be had. Its functions and operators are PostgreSQL's own:
// the search path of a role can put another "=" before them.
const beginTx = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL search_path = " + ownSearchPath

// ownSearchPath names pg_temp last, which would come first if it were left out.
const ownSearchPath = "pg_catalog, pg_temp"

// inTx runs f in a transaction, and in another one if the first was undone because of
// how its statements were prepared. The error is core.ErrOutcomeUnknown if the commit may
// have taken effect all the same.
func (s *Store) inTx(ctx context.Context, f func(pgx.Tx) error) error {
	return s.begun(ctx, beginTx, f)
}

// begun is inTx with a beginning of its own.
func (s *Store) begun(ctx context.Context, begin string, f func(pgx.Tx) error) error {
	return s.prepared(func(mode pgx.QueryExecMode) error {
		return s.pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
			committing := false
			err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{BeginQuery: begin}, func(tx pgx.Tx) error {
				err := f(transaction{tx, mode})
				committing = err == nil
				return err
			})
			if !committing {
				return err
			}
			return cmp.Or(unlessDefinite(err), replicated(conn.Conn()))
		})
	})
}

// collect runs a query of a transaction and gathers its rows.
func collect[T any](ctx context.Context, db querier, sql string, scan pgx.RowToFunc[T], args ...any) ([]T, error) {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scan)
}

// collectAlone is collect for a query by itself.
func collectAlone[T any](ctx context.Context, s *Store, sql string, scan pgx.RowToFunc[T], args ...any) (list []T, err error) {
	err = s.alone(ctx, func(db statements) error {
		list, err = collect(ctx, db, sql, scan, args...)
		return err
	})
	return list, err
}

// scanAlone scans the one row of a query by itself.
func (s *Store) scanAlone(ctx context.Context, sql string, args []any, dest ...any) error {
	return s.alone(ctx, func(db statements) error { return db.QueryRow(ctx, sql, args...).Scan(dest...) })
}

// exec runs a statement by itself.
func (s *Store) exec(ctx context.Context, sql string, args ...any) (tag pgconn.CommandTag, err error) {
	err = s.alone(ctx, func(db statements) error {
		tag, err = db.Exec(ctx, sql, args...)
		return err
	})
	return tag, err
}
