package main

import (
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/internal/tmptest"
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

// failover is a way in which a primary goes, and the former primary comes back.
type failover struct {
	writers  int
	takeAway func(t *testing.T, c *cluster, w *writers)
	back     func(t *testing.T, c *cluster)
	long     bool // whether it is for the long form only
}

var failovers = map[string]failover{
	"killed":                                {6, kill, rejoin, false},
	"demoted, with its sessions":            {6, demote, rejoinUnwritten, false},
	"frozen, with every connection in use":  {80, freeze, fence, false},
	"frozen, and found out before promoted": {6, freezeForLong, fence, true},
	"restarted as a standby":                {6, func(t *testing.T, c *cluster, _ *writers) { c.primary.Stop(t) }, func(t *testing.T, c *cluster) { c.primary.Follow(t, c.standby) }, true},
}

func kill(t *testing.T, c *cluster, _ *writers) { c.primary.Kill(t) }

func freeze(t *testing.T, c *cluster, _ *writers) { c.primary.Freeze(t) }

// freezeForLong freezes the primary until both instances have noticed.
func freezeForLong(t *testing.T, c *cluster, w *writers) {
	c.primary.Freeze(t)
	failed := w.failed.Load()
	pgtest.Eventually(t, "the instances answer 503 at once", func() bool { return w.failed.Load() > failed+100 })
}

// demote has the primary take no writes, and leaves its sessions.
func demote(t *testing.T, c *cluster, _ *writers) {
	admin := c.primary.URL(pgtest.Superuser, "postgres")
	pgtest.Exec(t, admin, "ALTER SYSTEM SET default_transaction_read_only = on")
	pgtest.Exec(t, admin, "SELECT pg_reload_conf()")
	pgtest.Eventually(t, "no write is under way", func() bool {
		before := c.left
		c.left = c.rowsOf(t, c.primary)
		return before == c.left
	})
}

// rejoin makes a standby of a former primary that does not run.
func rejoin(t *testing.T, c *cluster) { c.primary.Rejoin(t, c.standby) }

// fence ends a former primary, so that nothing is written to it, and rejoins it.
func fence(t *testing.T, c *cluster) {
	c.primary.Kill(t)
	rejoin(t, c)
}

// rejoinUnwritten sees that nothing was written to the former primary, and fences it.
func rejoinUnwritten(t *testing.T, c *cluster) {
	if now := c.rowsOf(t, c.primary); now != c.left {
		t.Errorf("the former primary had %d rows, and has %d", c.left, now)
	}
	fence(t, c)
}

// TestFailover takes the primary away while two instances are in use, and promotes its
// standby. The short form runs with every go test; the long one, with every way, back and
// forth several times, by
//
//	LOCKWOOD_TEST_REQUIRE_SERVERS=1 LOCKWOOD_TEST_LONG=1 go test ./cmd/lockwood -run 'TestFailover|TestDisturbances' -timeout 30m -v
func TestFailover(t *testing.T) {
	t.Parallel()
	for name, f := range failovers {
		if f.long && rounds() == 1 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			w := write(t, c.testDatabase, f.writers)
			for range rounds() {
				f.takeAway(t, c, w)
				c.standby.Promote(t)
				w.recovered(t, time.Now())
				f.back(t, c)
				c.standby.WaitForStandby(t)
				w.recovered(t, time.Now())
				c.primary, c.standby = c.standby, c.primary
			}
			w.judge(t)
		})
	}
}

// rounds is how often the long and the short form repeat what they do.
func rounds() int {
	if tmptest.Long() {
		return 4
	}
	return 1
}

// failoverSituation is a store with credentials whose primary was lost.
func failoverSituation(t *testing.T) situation {
	c := newCluster(t)
	fill(t, c.env, 10)
	c.primary.Kill(t)
	c.standby.Promote(t)
	return situation{
		env:    c.env,
		values: map[string]string{"postgres://lockwood@pg1:5432,pg2:5432/app": c.url},
		after:  wants("answers, shows every row, and takes writes", "ok         10"),
	}
}
