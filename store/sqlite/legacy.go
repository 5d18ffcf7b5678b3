package sqlite

import (
	"context"
	"database/sql"

	"github.com/lockwood-kms/lockwood/rotation"
	"github.com/lockwood-kms/lockwood/store/internal/records"
	"github.com/lockwood-kms/lockwood/store/internal/sqltext"
)

// CloseLegacy implements rotation.Store. It is one transaction, which excludes
// every other writer while it counts.
func (s *Store) CloseLegacy(ctx context.Context) (remaining int64, err error) {
	err = s.seeing(ctx, func(tx *sql.Tx) error {
		if err := tx.QueryRowContext(ctx, s.records.CountLegacy(records.Credentials())).Scan(&remaining); err != nil {
			return err
		}
		if remaining > 0 {
			return rotation.ErrLegacyRemains
		}
		if err := s.migrationFiles(ctx, tx, "001_credentials.down", "close_legacy"); err != nil {
			return err
		}
		_, err := exec(ctx, tx, s.queries.Get("set_legacy"), "closed")
		return err
	})
	return remaining, failure("closing the store to legacy records", err)
}

// OpenLegacy implements rotation.Store.
func (s *Store) OpenLegacy(ctx context.Context) error {
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		if err := s.migrationFiles(ctx, tx, "001_credentials.down"); err != nil {
			return err
		}
		_, err := exec(ctx, tx, s.queries.Get("set_legacy"), "open")
		return err
	})
	return failure("opening the store to legacy records", err)
}

// migrationFiles runs files of migrations: the triggers that refuse legacy
// records are made, and dropped if they exist, in the words of the migrations.
func (s *Store) migrationFiles(ctx context.Context, tx *sql.Tx, names ...string) error {
	files, err := sqltext.Load(migrationFiles, "migrations")
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := exec(ctx, tx, files.Get(name)); err != nil {
			return err
		}
	}
	return nil
}
