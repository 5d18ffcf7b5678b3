package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"

	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/internal/migration"
	"github.com/lockwood-kms/lockwood/store/internal/sqltext"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// errApplied means that another process applied a migration first.
var errApplied = errors.New("another process applied the migration")

// Migrate implements store.Store.
func (s *Store) Migrate(ctx context.Context, opts store.MigrateOptions) error {
	m, err := s.newMigrator(opts)
	if err != nil {
		return failure("preparing migration", err)
	}
	return failure("migrating", m.run(ctx))
}

// migrator is one call of Migrate.
type migrator struct {
	*Store
	opts     store.MigrateOptions
	files    sqltext.Set
	versions *migration.Versions
	goose    *goose.Provider
}

func (s *Store) newMigrator(opts store.MigrateOptions) (*migrator, error) {
	id, err := opts.NewID()
	if err != nil {
		return nil, err
	}
	files, err := sqltext.Load(migrationFiles, "migrations", "{{time_format}}", sqlTimeFormat, "{{store_id}}", id)
	if err != nil {
		return nil, err
	}
	m := &migrator{Store: s, opts: opts, files: files}
	m.versions = &migration.Versions{
		Name: migration.Table,
		Create: func(ctx context.Context, db database.DBTxConn) error {
			return m.makeVersions(ctx, db)
		},
		Exists: func(ctx context.Context, db database.DBTxConn) (bool, error) {
			return m.hasTable(ctx, db, migration.Table)
		},
	}
	m.goose, err = migration.NewProvider(s.write, m.versions, []migration.Step{
		{Version: 1, Up: m.once(1, m.makeCredentials), Down: m.step("001_credentials.down")},
		{Version: 2, Up: m.once(2, m.step("002_lockwood.up")), Down: m.step("002_lockwood.down")},
		{Version: 3, Up: m.once(3, m.step("003_rotation.up")), Down: m.step("003_rotation.down")},
		{Version: 4, Up: m.once(4, m.step("004_access_tokens.up")), Down: m.step("004_access_tokens.down")},
		{Version: 5, Up: m.once(5, m.step("005_ring_revision.up")), Down: m.step("005_ring_revision.down")},
	})
	return m, err
}

// run migrates. There is no lock to hold meanwhile: each migration is one write
// transaction, which begins by looking whether another process was first.
func (m *migrator) run(ctx context.Context) error {
	for {
		if _, err := m.goose.Up(ctx); !errors.Is(err, errApplied) {
			return err
		}
	}
}

// once returns up with errApplied before it if the version is applied already.
func (m *migrator) once(version int64, up func(context.Context, *sql.Tx) error) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		_, err := m.versions.GetMigration(ctx, tx, version)
		switch {
		case err == nil:
			return errApplied
		case !errors.Is(err, database.ErrVersionNotFound):
			return err
		}
		return up(ctx, tx)
	}
}

func (m *migrator) makeVersions(ctx context.Context, db database.DBTxConn) error {
	exists, err := m.hasTable(ctx, db, migration.Table)
	if err != nil || exists {
		return err
	}
	return m.exec(ctx, db, "000_migrations.up")
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

// exec runs a file, which holds several statements and no values.
func (m *migrator) exec(ctx context.Context, db execer, file string) error {
	_, err := exec(ctx, db, m.files.Get(file))
	return err
}

func (m *migrator) hasTable(ctx context.Context, db database.DBTxConn, table string) (found bool, err error) {
	err = db.QueryRowContext(ctx, m.queries.Get("table_exists"), table).Scan(&found)
	return found, err
}
