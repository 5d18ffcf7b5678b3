package wiring

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/lockwood-kms/lockwood/config"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/postgres"
	"github.com/lockwood-kms/lockwood/store/sqlite"
)

// Place tells which database db is, without its password: a vault in an unexpected
// place looks like one that lost everything.
func Place(db *config.Database) ([]slog.Attr, error) {
	driver := slog.String("driver", string(db.Driver))
	if db.Driver == config.SQLite {
		if db.Memory {
			return []slog.Attr{driver, slog.String("path", ":memory:")}, nil
		}
		path, err := filepath.Abs(db.Path)
		return []slog.Attr{driver, slog.String("path", path)}, err
	}
	p, err := postgresConfig(db).Place()
	return []slog.Attr{
		driver, slog.String("address", strings.Join(p.Addresses, ",")), slog.String("database", p.Database), slog.String("schema", p.Schema),
	}, err
}

// OpenStore opens the configured database. It does not wait for one that is down:
// an error means that the configuration does not do. The caller closes the store.
func OpenStore(ctx context.Context, db *config.Database, readOnly bool, log *slog.Logger) (store.Store, error) {
	if db.Driver == config.SQLite {
		s, err := sqlite.Open(ctx, sqlite.Config{Path: db.Path, Memory: db.Memory, ReadOnly: readOnly})
		if err != nil {
			return nil, err
		}
		return s, nil
	}
	settings := postgresConfig(db)
	settings.Logger = log
	s, err := postgres.Open(ctx, settings)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// DumpCommand returns the words of the command that dumps db, which is PostgreSQL, into
// the file at path. An error is postgres.Config.DumpCommand's.
func DumpCommand(db *config.Database, path string) ([]string, error) {
	return postgresConfig(db).DumpCommand(path)
}

func postgresConfig(db *config.Database) postgres.Config {
	return postgres.Config{URL: db.URL, Schema: db.Schema, SSL: db.SSL, SSLCA: db.SSLCA, PreparedStatements: db.PreparedStatements}
}

// Unmade reports whether db is a file that is yet to be made.
func Unmade(db *config.Database) bool {
	if db.Driver != config.SQLite || db.Memory {
		return false
	}
	_, err := os.Stat(db.Path)
	return errors.Is(err, fs.ErrNotExist)
}
