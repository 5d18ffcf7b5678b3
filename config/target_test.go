package config

import (
	"strings"
	"testing"
)

// A further database is named as DATABASE_URL names one, and takes the other settings of the
// configured one.
func TestDatabaseAt(t *testing.T) {
	c := &Config{Database: Database{Driver: SQLite, Path: "a.db", Schema: "forest", SSL: "false", PreparedStatements: "auto"}}
	pg, err := c.DatabaseAt("postgres://app@db/vault")
	if err != nil || pg.Driver != Postgres || pg.URL == "" || pg.Path != "" || pg.Schema != "forest" || pg.SSL != "false" {
		t.Errorf("%+v, %v", pg, err)
	}
	file, err := (&Config{Database: pg}).DatabaseAt("sqlite:/var/lib/b.db")
	if err != nil || file.Driver != SQLite || file.Path != "/var/lib/b.db" || file.URL != "" {
		t.Errorf("%+v, %v", file, err)
	}
	for _, url := range []string{"", "b.db", "mysql://s3cret@db/vault", "sqlite:", "sqlite:b.db?cache=shared", "sqlite: b.db"} {
		if db, err := c.DatabaseAt(url); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %+v, %v", url, db, err)
		}
	}
	if c.Database.Path != "a.db" {
		t.Error("the configured database changed")
	}
}
