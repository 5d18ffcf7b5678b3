package pgtest

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
)

var databases atomic.Int64

// NewDatabase makes an empty database and returns its URL for the superuser.
func (c *Cluster) NewDatabase(tb testing.TB) string {
	tb.Helper()
	return c.create(tb, "template1")
}

// CopyDatabase makes a database with all that is in the one at databaseURL, which nobody
// may be connected to, and returns its URL for the superuser.
func (c *Cluster) CopyDatabase(tb testing.TB, databaseURL string) string {
	tb.Helper()
	cfg, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		tb.Fatal(err)
	}
	return c.create(tb, cfg.Database)
}

func (c *Cluster) create(tb testing.TB, template string) string {
	tb.Helper()
	name := fmt.Sprintf("test_%d_%d", os.Getpid(), databases.Add(1))
	Exec(tb, c.URL(Superuser, "postgres"), "CREATE DATABASE "+name+" TEMPLATE "+template)
	return c.URL(Superuser, name)
}

// Exec runs one or more statements without parameters.
func Exec(tb testing.TB, databaseURL, sql string) {
	tb.Helper()
	conn := Connect(tb, databaseURL)
	defer conn.Close(context.Background())
	if _, err := conn.PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
		tb.Fatalf("executing SQL: %v", err)
	}
}

// Load runs a plain dump, as pg_dump writes it with --inserts.
func Load(tb testing.TB, databaseURL, path string) {
	tb.Helper()
	dump, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	Exec(tb, databaseURL, string(dump))
}

// Connect opens a connection, which closes with the test.
func Connect(tb testing.TB, databaseURL string) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(context.Background(), databaseURL)
	if err != nil {
		tb.Fatalf("connecting: %v", err)
	}
	tb.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// Copy dumps a database and restores it into another one, which is empty, with the
// server's own programs.
func (c *Cluster) Copy(tb testing.TB, from, to string) {
	tb.Helper()
	const file = "copy.sql"
	c.run(tb, c.program("pg_dump"), "--dbname", from, "--file", file)
	c.run(tb, c.program("psql"), "--quiet", "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--dbname", to, "--file", file)
}
