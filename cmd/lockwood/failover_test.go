package main

import (
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// cluster is a primary and its standby, and a database by a URL that names both.
type cluster struct {
	*testDatabase
	primary, standby *pgtest.Cluster
	name             string // of the database
	left             int    // rows of the primary when it was demoted
}

// rowsOf counts the credentials that a server has.
func (c *cluster) rowsOf(t *testing.T, server *pgtest.Cluster) (n int) {
	t.Helper()
	conn := pgtest.Connect(t, server.URL(pgtest.Superuser, c.name))
	defer conn.Close(t.Context())
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM "+c.table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{primary: pgtest.Start(t, &pgtest.Options{TCP: true})}
	c.testDatabase = postgresDatabase(t, c.primary)

	c.name = nameOf(t, c.url)
	c.standby = c.primary.Standby(t)
	c.url = fmt.Sprintf("postgres://%s@127.0.0.1:%d,127.0.0.1:%d/%s", pgtest.Superuser, c.primary.Port(), c.standby.Port(), c.name)
	c.env = c.with("DATABASE_URL=" + c.url)
	var err error
	if c.db, err = sql.Open("pgx", c.url+"?sslmode=disable&target_session_attrs=read-write&connect_timeout=2"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.db.Close() })
	return c
}

// TestFailover takes the primary away in several ways, while two instances serve, and
// promotes its standby.
func TestFailover(t *testing.T) {
	t.Parallel()
	freeze := func(t *testing.T, c *cluster) { c.primary.Freeze(t) }
	fence := func(t *testing.T, c *cluster) {
		c.primary.Kill(t)
		c.primary.Rejoin(t, c.standby)
	}
	demote := func(t *testing.T, c *cluster) {
		pgtest.Exec(t, c.primary.URL(pgtest.Superuser, "postgres"), "ALTER SYSTEM SET default_transaction_read_only = on")
		pgtest.Exec(t, c.primary.URL(pgtest.Superuser, "postgres"), "SELECT pg_reload_conf()")
		pgtest.Eventually(t, "no deposit is under way", func() bool {
			before := c.left
			c.left = c.rowsOf(t, c.primary)
			return before == c.left
		})
	}
	for name, test := range map[string]struct {
		writers  int
		takeAway func(t *testing.T, c *cluster)
		back     func(t *testing.T, c *cluster)
	}{
		"killed": {6, func(t *testing.T, c *cluster) { c.primary.Kill(t) }, func(t *testing.T, c *cluster) { c.primary.Rejoin(t, c.standby) }},
		"demoted, with its sessions": {6, demote, func(t *testing.T, c *cluster) {
			if n, now := c.left, c.rowsOf(t, c.primary); n != now {
				t.Errorf("the former primary had %d rows, and has %d", n, now)
			}
			fence(t, c)
		}},
		"restarted": {6, func(t *testing.T, c *cluster) { c.primary.Stop(t) }, func(t *testing.T, c *cluster) { c.primary.Follow(t, c.standby) }},
		"frozen":    {6, freeze, fence}, "frozen, with every connection in use": {80, freeze, fence},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			w := write(t, c.testDatabase, test.writers)
			test.takeAway(t, c)
			c.standby.Promote(t)
			w.recovered(t, time.Now())
			test.back(t, c)
			c.standby.WaitForStandby(t)
			w.recovered(t, time.Now())
			w.judge(t)
		})
	}
}
