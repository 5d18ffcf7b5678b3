// Package migration fits goose to schemas whose name is configuration. goose
// numbers migrations, runs each in a transaction of its own with the line that
// records it, and refuses to skip one; but its version tables cannot be named
// with a quoted schema, and reading one first creates it. Versions does both
// with statements of our own, for any database.
package migration

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

// Table is the table of the migrations that were applied.
const Table = "lockwood_migrations"

// Step is one numbered migration. Both functions run in a transaction.
type Step struct {
	Version  int64
	Up, Down func(context.Context, *sql.Tx) error
}

// NewProvider returns the goose provider for the steps.
func NewProvider(db *sql.DB, versions *Versions, steps []Step) (*goose.Provider, error) {
	migrations := make([]*goose.Migration, len(steps))
	for i, s := range steps {
		migrations[i] = goose.NewGoMigration(s.Version, &goose.GoFunc{RunTx: s.Up}, &goose.GoFunc{RunTx: s.Down})
	}
	p, err := goose.NewProvider(goose.DialectCustom, db, nil,
		goose.WithStore(versions),
		goose.WithGoMigrations(migrations...),
		goose.WithDisableGlobalRegistry(true),
		goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return nil, fmt.Errorf("preparing migrations: %w", err)
	}
	return p, nil
}

// Versions is the table of applied migrations. It implements goose's
// database.Store.
type Versions struct {
	// Name is the table as it is written in SQL, quoted and with its schema.
	Name string
	// Create makes the table.
	Create func(context.Context, database.DBTxConn) error
	// Exists reports whether the table exists.
	Exists func(context.Context, database.DBTxConn) (bool, error)
}

// Tablename returns the table as it is written in SQL.
func (v *Versions) Tablename() string { return v.Name }

// TableExists reports whether the table exists.
func (v *Versions) TableExists(ctx context.Context, db database.DBTxConn) (bool, error) {
	return v.Exists(ctx, db)
}

// CreateVersionTable makes the table.
func (v *Versions) CreateVersionTable(ctx context.Context, db database.DBTxConn) error {
	return v.Create(ctx, db)
}

// Insert records a migration as applied. Version 0 comes with the table; two
// processes that found no table may both insert it.
func (v *Versions) Insert(ctx context.Context, db database.DBTxConn, r database.InsertRequest) error {
	_, err := db.ExecContext(ctx, "INSERT INTO "+v.Name+" (version, applied_at) VALUES ($1, CURRENT_TIMESTAMP) ON CONFLICT DO NOTHING", r.Version)
	return err
}

// Delete records a migration as no longer applied.
func (v *Versions) Delete(ctx context.Context, db database.DBTxConn, version int64) error {
	_, err := db.ExecContext(ctx, "DELETE FROM "+v.Name+" WHERE version = $1", version)
	return err
}

// GetMigration returns database.ErrVersionNotFound unless the migration is
// applied. It does not tell when that was.
func (v *Versions) GetMigration(ctx context.Context, db database.DBTxConn, version int64) (*database.GetMigrationResult, error) {
	err := db.QueryRowContext(ctx, "SELECT version FROM "+v.Name+" WHERE version = $1", version).Scan(&version)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, database.ErrVersionNotFound
	}
	return &database.GetMigrationResult{IsApplied: true}, err
}

// GetLatestVersion returns the highest version that is applied, or
// database.ErrVersionNotFound.
func (v *Versions) GetLatestVersion(ctx context.Context, db database.DBTxConn) (int64, error) {
	var latest sql.NullInt64
	if err := db.QueryRowContext(ctx, "SELECT max(version) FROM "+v.Name).Scan(&latest); err != nil {
		return 0, err
	}
	if !latest.Valid {
		return 0, database.ErrVersionNotFound
	}
	return latest.Int64, nil
}

// ListMigrations returns what is applied, the highest version first.
func (v *Versions) ListMigrations(ctx context.Context, db database.DBTxConn) (list []*database.ListMigrationsResult, err error) {
	rows, err := db.QueryContext(ctx, "SELECT version FROM "+v.Name+" ORDER BY version DESC")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		m := &database.ListMigrationsResult{IsApplied: true}
		if err := rows.Scan(&m.Version); err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, rows.Err()
}
