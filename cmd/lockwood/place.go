package main

import (
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/lockwood-kms/lockwood/config"
)

// place tells which database db is, without its password: a vault in an unexpected
// place looks like one that lost everything.
func place(db *config.Database) ([]slog.Attr, error) {
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
