package postgres

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"

	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/pause"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/internal/migration"
	"github.com/lockwood-kms/lockwood/store/internal/sqltext"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// upstreamLock is the key of the advisory lock under which upstream migrates, so
// that the two never do so at the same time.
const upstreamLock = 6438071259157

// lockPoll is the mean wait before the lock is tried again.
const lockPoll = 100 * time.Millisecond

// Migrate implements store.Store. It needs the right to create the schema only
// if that does not exist, and the right to create tables in it only if
// Lockwood's do not exist.
func (s *Store) Migrate(ctx context.Context, opts store.MigrateOptions) error {
	m, err := s.newMigrator(opts)
	if err != nil {
		return failure("preparing migration", err)
	}
	defer m.db.Close()
	return failure("migrating", m.run(ctx))
}

// migrator is one call of Migrate.
type migrator struct {
	*Store
	opts     store.MigrateOptions
	files    sqltext.Set
	db       *sql.DB // the pool, as goose wants it
	versions *migration.Versions
	goose    *goose.Provider
	waitsFor atomic.Pointer[string]
}

// tellAfter is how long a migration may take before it says what it waits for.
const tellAfter = 5 * time.Second

// What a migration may wait for.
const (
	waitsForAnswer = "an answer of the database"
	waitsForLock   = "the lock under which migrations run: another instance or upstream holds it, and it is free when that one has migrated or ends"
	waitsForSecond = "a second connection, beside the one that holds the lock under which migrations run: a pooler has to have two at least " +
		"(PgBouncer: default_pool_size), or it ends this after a while (query_wait_timeout, 120 s)"
	waitsForTables = "its statements, which wait for every transaction on the credential table that began before"
)

func (m *migrator) waitFor(what string) { m.waitsFor.Store(&what) }

// tell logs what the migration waits for if it takes long, until stop.
func (m *migrator) tell() (stop func() bool) {
	m.waitFor(waitsForAnswer)
	return time.AfterFunc(tellAfter, func() {
		if m.opts.Logger != nil {
			m.opts.Logger.Warn("the migration of the database waits; nothing is served until it is done", "waits_for", *m.waitsFor.Load())
		}
	}).Stop
}

func (s *Store) newMigrator(opts store.MigrateOptions) (*migrator, error) {
	id, err := opts.NewID()
	if err != nil {
		return nil, err
	}
	files, err := sqltext.Load(migrationFiles, "migrations", "{{schema}}", s.quoted, "{{store_id}}", id)
	if err != nil {
		return nil, err
	}
	m := &migrator{Store: s, opts: opts, files: files, db: stdlib.OpenDBFromPool(s.pool)}
	m.versions = &migration.Versions{
		Name: pgx.Identifier{s.schema, migration.Table}.Sanitize(),
		Create: func(ctx context.Context, db database.DBTxConn) error {
			return m.exec(ctx, db, "000_migrations.up")
		},
		Exists: func(ctx context.Context, db database.DBTxConn) (bool, error) {
			return m.hasTable(ctx, db, migration.Table)
		},
	}
	m.goose, err = migration.NewProvider(m.db, m.versions, []migration.Step{
		{Version: 1, Up: m.makeCredentials, Down: m.step("001_credentials.down")},
		{Version: 2, Up: m.step("002_lockwood.up"), Down: m.step("002_lockwood.down")},
		{Version: 3, Up: m.step("003_rotation.up"), Down: m.step("003_rotation.down")},
		{Version: 4, Up: m.step("004_quota.up"), Down: m.step("004_quota.down")},
		{Version: 5, Up: m.step("005_access_tokens.up"), Down: m.step("005_access_tokens.down")},
		{Version: 6, Up: m.step("006_ring_revision.up"), Down: m.step("006_ring_revision.down")},
	})
	return m, err
}

// run migrates under the lock, unless nothing is to be done, or until another
// instance has done it.
//
// The lock is tried and not waited for: a waiting transaction would keep its
// server connection, and behind a pooler with few of them the instance that
// holds the lock might never get the second one that it works on.
func (m *migrator) run(ctx context.Context) error {
	defer m.tell()()
	for {
		pending, err := m.pending(ctx)
		if err != nil || !pending {
			return err
		}
		locked, err := m.tryLocked(ctx, m.up)
		if err != nil || locked {
			return err
		}
		m.waitFor(waitsForLock)
		if !pause.For(ctx, lockPoll/2+rand.N(lockPoll)) {
			return ctx.Err()
		}
	}
}

// pending reports whether a migration is to be applied. It only reads.
func (m *migrator) pending(ctx context.Context) (bool, error) {
	exists, err := m.hasTable(ctx, m.db, migration.Table)
	if err != nil || !exists {
		return true, err
	}
	return m.goose.HasPending(ctx)
}

// tryLocked runs f if upstream's lock is free, in a transaction that holds it
// and does nothing else; f works on other connections.
func (m *migrator) tryLocked(ctx context.Context, f func(context.Context) error) (locked bool, err error) {
	err = pgx.BeginFunc(ctx, m.pool, func(tx pgx.Tx) error {
		// While f works this transaction is idle, which a server may be set to end.
		if _, err := tx.Exec(ctx, "SET LOCAL idle_in_transaction_session_timeout = 0"); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock($1::bigint)", int64(upstreamLock)).Scan(&locked); err != nil {
			return err
		}
		if !locked {
			return nil
		}
		m.waitFor(waitsForSecond)
		return f(ctx)
	})
	return locked, err
}

func (m *migrator) up(ctx context.Context) error {
	if err := m.makeSchema(ctx); err != nil {
		return fmt.Errorf("creating schema: %w", err)
	}
	m.waitFor(waitsForTables)
	_, err := m.goose.Up(ctx)
	return err
}

// makeSchema looks before it creates, since IF NOT EXISTS asks for the right to
// create even where there is nothing to do.
func (m *migrator) makeSchema(ctx context.Context) error {
	var exists bool
	if err := m.pool.QueryRow(ctx, m.queries.Get("schema_exists"), m.schema).Scan(&exists); err != nil || exists {
		return err
	}
	_, err := m.pool.Exec(ctx, "CREATE SCHEMA "+m.quoted)
	return err
}

// makeCredentials makes the credential table, unless upstream did.
func (m *migrator) makeCredentials(ctx context.Context, tx *sql.Tx) error {
	exists, err := m.hasTable(ctx, tx, credential.Table)
	if err != nil || exists {
		return err
	}
	if err := m.exec(ctx, tx, "001_credentials.up"); err != nil || m.opts.WriteLegacy {
		return err
	}
	return m.exec(ctx, tx, "close_legacy")
}

// step returns the migration that runs the file.
func (m *migrator) step(file string) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error { return m.exec(ctx, tx, file) }
}

// session is what *sql.DB, *sql.Conn and *sql.Tx have in common.
type session interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// exec runs a file, which holds several statements and no values; only the
// simple protocol takes more than one.
func (m *migrator) exec(ctx context.Context, q session, file string) error {
	_, err := q.ExecContext(ctx, "SET LOCAL search_path = "+ownSearchPath+"; "+m.files.Get(file), pgx.QueryExecModeSimpleProtocol)
	return err
}

func (m *migrator) hasTable(ctx context.Context, q session, table string) (found bool, err error) {
	err = q.QueryRowContext(ctx, m.queries.Get("table_exists"), m.schema, table).Scan(&found)
	return found, err
}
