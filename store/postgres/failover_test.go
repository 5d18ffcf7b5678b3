package postgres_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/postgres"
)

// readOnly makes a server refuse writes, or not, in the sessions that are there too, as
// a demoted primary does.
func readOnly(t *testing.T, url string, on string) {
	t.Helper()
	conn := pgtest.Connect(t, url)
	defer conn.Close(t.Context())
	for _, sql := range []string{"ALTER SYSTEM SET default_transaction_read_only = " + on, "SELECT pg_reload_conf()"} {
		if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	pgtest.Eventually(t, "the setting is taken up", func() bool {
		var is string
		err := conn.QueryRow(t.Context(), "SHOW default_transaction_read_only").Scan(&is)
		return err == nil && is == on
	})
}

// When the primary is demoted and keeps its sessions, the store leaves it for the
// server of the URL that takes writes.
func TestFailover(t *testing.T) {
	first, second := pgtest.Start(t, nil), pgtest.Start(t, nil)
	one, key := first.NewDatabase(t), newKey()
	name := databaseName(one)
	pgtest.Exec(t, second.URL(pgtest.Superuser, "postgres"), "CREATE DATABASE "+name)
	two := second.URL(pgtest.Superuser, name)
	for _, url := range []string{one, two} {
		s := openMigrated(t, postgres.Config{URL: core.Secret(url)})
		if err := s.InsertDataKey(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	readOnly(t, two, "on")
	both := "postgres:///" + name + "?user=" + pgtest.Superuser + "&host=" + second.Dir() + "," + first.Dir()
	s := open(t, postgres.Config{URL: core.Secret(both)})
	ctx := t.Context()
	for range 3 {
		if err := s.Upsert(ctx, sealedRow(key.ID, "before"), key.ID, 0); err != nil {
			t.Fatalf("the server that takes writes is the second of the URL: %v", err)
		}
	}
	var sessions []<-chan error // on the primary
	for range 4 {
		sessions = append(sessions, start(func() error {
			_, err := s.Counts(ctx)
			return err
		}))
	}
	for _, done := range sessions {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}

	readOnly(t, one, "on")
	readOnly(t, two, "off")
	refused := 0
	pgtest.Eventually(t, "deposits reach the new primary", func() bool {
		err := s.Upsert(ctx, sealedRow(key.ID, "after"), key.ID, 0)
		if err != nil && !errors.Is(err, core.ErrStoreUnavailable) {
			t.Fatalf("after the failover: %v, want core.ErrStoreUnavailable", err)
		}
		if err != nil && strings.Contains(err.Error(), "25006") {
			refused++
		}
		return err == nil
	})
	if refused > 5 {
		t.Errorf("%d deposits were refused by the former primary, want no more than there were sessions", refused)
	}
	var n int
	if err := pgtest.Connect(t, two).QueryRow(ctx, "SELECT count(*) FROM forest.ai_mcp_oauth_credentials").Scan(&n); err != nil || n != 1 {
		t.Errorf("the new primary has %d credentials, %v", n, err)
	}
	if found, err := s.Examine(ctx); err != nil || len(found) != 0 {
		t.Errorf("found %v, %v", found, err)
	}
	former := open(t, postgres.Config{URL: core.Secret(one)})
	if found, err := former.Examine(ctx); err != nil || len(found) != 1 || found[0].Condition != store.ReadOnly {
		t.Errorf("on the former primary: %v, %v; want store.ReadOnly", found, err)
	}
}

// A commit that no standby has confirmed, since somebody cancelled its wait, is not told
// as done: it is gone with its server.
func TestAnUnreplicatedWriteIsUnknown(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Start(t, &pgtest.Options{NoSync: true})
	url, key, ctx := cluster.NewDatabase(t), newKey(), t.Context()
	s := openMigrated(t, postgres.Config{URL: core.Secret(url)})
	if err := s.InsertDataKey(ctx, key); err != nil {
		t.Fatal(err)
	}
	next := newKey()
	next.Replaces, next.Version = key.ID, key.Version+1
	admin := pgtest.Connect(t, url)
	for _, sql := range []string{"ALTER SYSTEM SET synchronous_standby_names = 'missing'", "SELECT pg_reload_conf()"} {
		if _, err := admin.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	cancelled := func(write func() error) error {
		writing := start(write)
		pgtest.Eventually(t, "a write waits for a standby", func() bool {
			select {
			case err := <-writing: // the server did not know of the setting yet
				if err != nil {
					t.Fatal(err)
				}
				writing = start(write)
			default:
			}
			var n int
			err := admin.QueryRow(ctx, "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").Scan(&n)
			return err == nil && n == 1
		})
		return <-writing
	}
	if err := cancelled(func() error { return s.Upsert(ctx, sealedRow(key.ID, "server"), key.ID, 0) }); !errors.Is(err, core.ErrOutcomeUnknown) {
		t.Errorf("a statement: %v, want core.ErrOutcomeUnknown", err)
	}
	if err := cancelled(func() error { return s.InsertDataKey(ctx, next) }); !errors.Is(err, core.ErrOutcomeUnknown) {
		t.Errorf("a transaction: %v, want core.ErrOutcomeUnknown", err)
	}
}
