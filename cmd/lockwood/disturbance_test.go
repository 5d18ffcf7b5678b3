package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// TestDisturbances has two instances in use while their server restarts, their sessions
// are ended, PgBouncer restarts, and the password changes. TestFailover says how to run
// the long form.
func TestDisturbances(t *testing.T) {
	t.Parallel()
	t.Run("server", func(t *testing.T) {
		t.Parallel()
		c := pgtest.Start(t, nil)
		d := postgresDatabase(t, c)
		w := write(t, d, 6)
		for range rounds() {
			c.Restart(t)
			w.recovered(t, time.Now())
			endSessions(t, c)
			w.recovered(t, time.Now())
		}
		w.judge(t)
	})
	t.Run("pgbouncer", func(t *testing.T) {
		t.Parallel()
		c := pgtest.Start(t, nil)
		d := postgresDatabase(t, c)
		bouncer := c.NewBouncer(t, 4)
		d.env = d.with("DATABASE_URL=" + bouncer.URL(d.url))
		w := write(t, d, 6)
		for range rounds() {
			bouncer.Kill()
			bouncer.Start()
			w.recovered(t, time.Now())
			reconnect(t, bouncer.URL(c.URL(pgtest.Superuser, "pgbouncer")))
			w.recovered(t, time.Now())
			c.Restart(t)
			w.recovered(t, time.Now())
			endSessions(t, c)
			w.recovered(t, time.Now())
		}
		w.judge(t)
	})
	t.Run("password", func(t *testing.T) {
		t.Parallel()
		c := pgtest.Start(t, &pgtest.Options{TCP: true, HBA: "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"})
		d := postgresDatabase(t, c)
		d.exec(t, "CREATE ROLE service LOGIN PASSWORD 'password-0'; GRANT ALL ON DATABASE "+nameOf(t, d.url)+" TO service")
		file := filepath.Join(t.TempDir(), "pgpass")
		keep := func(n int) {
			if err := os.WriteFile(file, fmt.Appendf(nil, "*:*:*:service:password-%d\n", n), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		keep(0)
		d.env = d.with(fmt.Sprintf("DATABASE_URL=postgres://service@127.0.0.1:%d/%s?passfile=%s", c.Port(), nameOf(t, d.url), file))
		w := write(t, d, 6)
		for n := 1; n <= rounds(); n++ {
			failed := w.failed.Load()
			d.exec(t, fmt.Sprintf("ALTER ROLE service PASSWORD 'password-%d'", n))
			endSessions(t, c)
			pgtest.Eventually(t, "the old password is refused", func() bool { return w.failed.Load() > failed+10 })
			keep(n)
			w.recovered(t, time.Now())
		}
		w.judge(t)
		for _, s := range w.instances {
			if strings.Contains(s.log.String(), "password-") {
				t.Error("a password is in the log")
			}
		}
	})
}

func nameOf(t *testing.T, databaseURL string) string {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(u.Path, "/")
}

// endSessions ends every session of the server but the one that does.
func endSessions(t *testing.T, c *pgtest.Cluster) {
	t.Helper()
	pgtest.Exec(t, c.URL(pgtest.Superuser, "postgres"), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
}

// reconnect has PgBouncer exchange its server connections.
func reconnect(t *testing.T, console string) {
	t.Helper()
	conn := pgtest.Connect(t, console)
	defer conn.Close(context.Background())
	if _, err := conn.PgConn().Exec(t.Context(), "RECONNECT").ReadAll(); err != nil {
		t.Fatal(err)
	}
}
