package postgres_test

import (
	"database/sql"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/postgres"
	"github.com/lockwood-kms/lockwood/store/storetest"
)

func TestStore(t *testing.T) {
	t.Parallel()
	testStore(t, pgtest.Shared(t), func(url string) string { return url })
}

// testStore runs the suite on databases of a cluster, which stores reach by another way.
func testStore(t *testing.T, cluster *pgtest.Cluster, by func(url string) string) {
	template := cluster.NewDatabase(t)
	s, err := postgres.Open(t.Context(), postgres.Config{URL: core.Secret(template), SSL: "false"})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Migrate(t.Context(), store.MigrateOptions{})
	s.Close() // a database that is in use is not copied
	if err != nil {
		t.Fatal(err)
	}
	storetest.Run(t, storetest.Harness{
		New: func(t *testing.T) *storetest.Database {
			url := cluster.NewDatabase(t)
			return newDatabase(t, by(url), url)
		},
		Migrated: func(t *testing.T) *storetest.Database {
			url := cluster.CopyDatabase(t, template)
			return newDatabase(t, by(url), url)
		},
	})
}

// The whole suite behind a transaction pooler with few connections shows that
// the store uses nothing that belongs to a session.
func TestStoreBehindPgBouncer(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Shared(t)
	testStore(t, cluster, cluster.PgBouncer(t, 4))
}

// newDatabase is the database at direct, which stores reach by url.
func newDatabase(t *testing.T, url, direct string) *storetest.Database {
	t.Helper()
	return &storetest.Database{
		Open:   func(t *testing.T) store.Store { return open(t, postgres.Config{URL: core.Secret(url), SSL: "false"}) },
		SQL:    openSQL(t, direct),
		Schema: "forest.",
		MakeUpstream: func(t *testing.T) {
			pgtest.Exec(t, direct, upstreamTables)
		},
	}
}

// upstreamTables is what upstream's migrations leave; see the dump in testdata.
const upstreamTables = `
CREATE SCHEMA forest;
CREATE TABLE forest."SequelizeMeta" (name varchar(255) PRIMARY KEY);
INSERT INTO forest."SequelizeMeta" VALUES ('002_create_mcp_oauth_credentials');
CREATE TABLE forest.ai_mcp_oauth_credentials (
	id serial PRIMARY KEY, user_id integer NOT NULL, mcp_server_id varchar(255) NOT NULL,
	refresh_token_enc bytea NOT NULL, client_id varchar(255), client_secret_enc bytea, client_secret_expires_at timestamptz,
	token_endpoint varchar(2048) NOT NULL, token_endpoint_auth_method varchar(64), scopes varchar(2048),
	created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX idx_user_id_mcp_server_id ON forest.ai_mcp_oauth_credentials (user_id, mcp_server_id);
`

func open(t *testing.T, cfg postgres.Config) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func openMigrated(t *testing.T, cfg postgres.Config) *postgres.Store {
	t.Helper()
	s := open(t, cfg)
	if err := s.Migrate(t.Context(), store.MigrateOptions{}); err != nil {
		t.Fatal(err)
	}
	return s
}

func openSQL(t *testing.T, url string) *sql.DB {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDB(*cfg)
	t.Cleanup(func() { _ = db.Close() })
	return db
}
