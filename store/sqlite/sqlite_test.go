package sqlite_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/ncruces/go-sqlite3/driver"

	"github.com/lockwood-kms/lockwood/internal/tmptest"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/sqlite"
	"github.com/lockwood-kms/lockwood/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, storetest.Harness{New: newDatabase})
}

func newDatabase(t *testing.T) *storetest.Database {
	t.Helper()
	path := filepath.Join(tmptest.Dir(t), "lockwood.db")
	db := openSQL(t, path)
	return &storetest.Database{
		Open:         func(t *testing.T) store.Store { return openStore(t, sqlite.Config{Path: path}) },
		SQL:          db,
		MakeUpstream: func(t *testing.T) { makeUpstream(t, db) },
	}
}

func openStore(t *testing.T, cfg sqlite.Config) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func openSQL(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := driver.Open("file:" + path + "?_pragma=busy_timeout(10000)&_pragma=foreign_keys(on)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// makeUpstream makes the tables in the words of upstream's migration on SQLite.
func makeUpstream(t *testing.T, db *sql.DB) {
	t.Helper()
	_, err := db.ExecContext(t.Context(), "CREATE TABLE `SequelizeMeta` (`name` VARCHAR(255) NOT NULL UNIQUE PRIMARY KEY);"+
		"INSERT INTO `SequelizeMeta` VALUES ('002_create_mcp_oauth_credentials');"+
		"CREATE TABLE `ai_mcp_oauth_credentials` (`id` INTEGER PRIMARY KEY AUTOINCREMENT, `user_id` INTEGER NOT NULL, `mcp_server_id` VARCHAR(255) NOT NULL, "+
		"`refresh_token_enc` BLOB NOT NULL, `client_id` VARCHAR(255), `client_secret_enc` BLOB, `client_secret_expires_at` DATETIME, "+
		"`token_endpoint` VARCHAR(2048) NOT NULL, `token_endpoint_auth_method` VARCHAR(64), `scopes` VARCHAR(2048), "+
		"`created_at` DATETIME NOT NULL, `updated_at` DATETIME NOT NULL);"+
		"CREATE UNIQUE INDEX `idx_user_id_mcp_server_id` ON `ai_mcp_oauth_credentials` (`user_id`, `mcp_server_id`);")
	if err != nil {
		t.Fatal(err)
	}
}
