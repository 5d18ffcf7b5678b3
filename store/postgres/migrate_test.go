package postgres_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/postgres"
)

// upstreamLock is the advisory lock that upstream migrates under.
const upstreamLock = 6438071259157

// A database that upstream wrote is taken over with everything in it.
func TestTakeOverOfADump(t *testing.T) {
	url := pgtest.Shared(t).NewDatabase(t)
	pgtest.Load(t, url, "testdata/upstream_dump.sql")
	sequelize := dump(t, url)
	s := openMigrated(t, postgres.Config{URL: core.Secret(url)})

	if after := dump(t, url); after != sequelize {
		t.Errorf("upstream's schema or registry changed from\n%s\nto\n%s", sequelize, after)
	}
	c, err := s.Counts(t.Context())
	if err != nil || c.Credentials != 59 || c.Legacy != c.Records || c.Records <= 59 {
		t.Errorf("counts are %+v, %v; want the dump's 59 credentials, all legacy", c, err)
	}
	var last int64
	rows, err := s.Scan(t.Context(), 0, 100)
	if err != nil || len(rows) != 59 {
		t.Fatalf("scanned %d rows, %v", len(rows), err)
	}
	last = rows[58].ID
	again := rows[0]
	if err := s.Upsert(t.Context(), &again, envelope.KeyID{}, 0); err != nil {
		t.Fatal(err)
	}
	got, err := s.Get(t.Context(), again.UserID, again.MCPServerID)
	if err != nil || got.ID <= last || !slices.Equal(got.RefreshTokenEnc, again.RefreshTokenEnc) {
		t.Errorf("after a deposit over row %d: %v, row %d; want the same record under an ID above %d", again.ID, err, got.ID, last)
	}
}

// dump describes upstream's tables: columns, indexes, constraints, SequelizeMeta.
func dump(t *testing.T, url string) string {
	t.Helper()
	var text string
	err := pgtest.Connect(t, url).QueryRow(t.Context(), `
SELECT concat_ws(E'\n',
  (SELECT string_agg(concat_ws(' ', table_name, column_name, data_type, character_maximum_length, is_nullable, column_default), E'\n' ORDER BY table_name, ordinal_position)
     FROM information_schema.columns WHERE table_schema = 'forest' AND table_name NOT LIKE 'lockwood%'),
  (SELECT string_agg(indexdef, E'\n' ORDER BY indexdef) FROM pg_indexes WHERE schemaname = 'forest' AND tablename NOT LIKE 'lockwood%'),
  (SELECT string_agg(concat(conrelid::regclass, ' ', conname), E'\n' ORDER BY conname) FROM pg_constraint c JOIN pg_class r ON r.oid = c.conrelid
     WHERE r.relnamespace = 'forest'::regnamespace AND r.relname NOT LIKE 'lockwood%'),
  (SELECT string_agg(name, E'\n' ORDER BY name) FROM forest."SequelizeMeta"))`).Scan(&text)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestSchemaIsConfigurableAndQuoted(t *testing.T) {
	url := pgtest.Shared(t).NewDatabase(t)
	for _, schema := range []string{"Team$A", "select", strings.Repeat("x", 63)} {
		s := openMigrated(t, postgres.Config{URL: core.Secret(url), Schema: schema})
		row := &credential.Row{UserID: 1, Metadata: credential.Metadata{MCPServerID: schema}, RefreshTokenEnc: []byte("LKW1")}
		if err := s.Upsert(t.Context(), row, envelope.KeyID{}, 0); err != nil {
			t.Errorf("%s: %v", schema, err)
		}
		if list, err := s.List(t.Context(), 1, nil, 10); err != nil || len(list) != 1 || list[0].MCPServerID != schema {
			t.Errorf("%s holds %v, %v; want its own credential", schema, list, err)
		}
	}
	var elsewhere int
	if err := pgtest.Connect(t, url).QueryRow(t.Context(), "SELECT count(*) FROM pg_tables WHERE schemaname IN ('public', 'forest')").Scan(&elsewhere); err != nil || elsewhere != 0 {
		t.Errorf("%d tables were made outside the schema, %v", elsewhere, err)
	}
}

// Rights on the schema are enough to migrate, and rights on the tables to serve.
func TestLeastRights(t *testing.T) {
	cluster := pgtest.Shared(t)
	url := cluster.NewDatabase(t)
	_, database, _ := strings.Cut(strings.TrimPrefix(url, "postgres://"), "/")
	database, _, _ = strings.Cut(database, "?")
	owner, server, stranger := database+"_owner", database+"_server", database+"_stranger"
	pgtest.Exec(t, url, "REVOKE CREATE ON DATABASE "+database+" FROM public; "+
		"CREATE ROLE "+owner+" LOGIN; CREATE ROLE "+server+" LOGIN; CREATE ROLE "+stranger+" LOGIN; "+
		"CREATE SCHEMA forest; GRANT USAGE, CREATE ON SCHEMA forest TO "+owner+"; GRANT USAGE ON SCHEMA forest TO "+server)
	openMigrated(t, postgres.Config{URL: core.Secret(cluster.URL(owner, database))})

	pgtest.Exec(t, url, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA forest TO "+server)
	s := openMigrated(t, postgres.Config{URL: core.Secret(cluster.URL(server, database))})
	ctx := t.Context()
	key := newKey()
	if err := s.InsertDataKey(ctx, key); err != nil {
		t.Error(err)
	}
	if err := s.Upsert(ctx, sealedRow(key.ID, "server"), key.ID, 0); err != nil {
		t.Error(err)
	}
	if ok, err := s.ReserveSeals(ctx, key.ID, 1, 10); err != nil || !ok {
		t.Error(ok, err)
	}
	if _, err := s.DestroyDataKey(ctx, key.ID); err == nil {
		t.Error("the primary was destroyed")
	}

	other := open(t, postgres.Config{URL: core.Secret(cluster.URL(stranger, database))})
	if err := other.Migrate(ctx, store.MigrateOptions{}); err == nil || errors.Is(err, core.ErrStoreUnavailable) || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("a role without rights migrates: %v, want permission denied", err)
	}
}

// While upstream migrates we wait, without keeping a connection of the pooler;
// once everything is applied, nobody needs the lock.
func TestMigrationsExcludeEachOther(t *testing.T) {
	cluster := pgtest.Shared(t)
	url := cluster.NewDatabase(t)
	behind := cluster.PgBouncer(t, 2)(url)
	ctx := t.Context()
	upstream, err := pgtest.Connect(t, url).Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := upstream.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(upstreamLock)); err != nil {
		t.Fatal(err)
	}
	const instances = 10
	results := make(chan error, instances)
	for range instances {
		s := open(t, postgres.Config{URL: core.Secret(behind)})
		go func() { results <- s.Migrate(ctx, store.MigrateOptions{}) }()
	}
	watcher := pgtest.Connect(t, url)
	pgtest.Eventually(t, "the instances try the lock a few times each", func() bool {
		var transactions int
		if err := watcher.QueryRow(ctx, "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()").Scan(&transactions); err != nil {
			t.Fatal(err)
		}
		return transactions > 10*instances
	})
	if len(results) != 0 {
		t.Fatalf("an instance did not wait for upstream: %v", <-results)
	}
	if err := upstream.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	for range instances {
		if err := <-results; err != nil {
			t.Errorf("migrating ten at once over two connections: %v", err)
		}
	}

	if _, err := pgtest.Connect(t, url).Exec(ctx, "SELECT pg_advisory_lock($1)", int64(upstreamLock)); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := open(t, postgres.Config{URL: core.Secret(url)}).Migrate(short, store.MigrateOptions{}); err != nil {
		t.Errorf("with everything applied, a migration waits for the lock: %v", err)
	}
}

// A migration that waits says for what: another's lock, or a second connection behind a
// pooler that has one.
func TestAMigrationThatWaitsSaysForWhat(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Shared(t)
	for name, test := range map[string]struct {
		connections int
		locked      bool
		want        string
	}{
		"the lock":            {2, true, "another instance or upstream holds it"},
		"a second connection": {1, false, "default_pool_size"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := cluster.NewDatabase(t)
			if conn := pgtest.Connect(t, url); test.locked {
				if _, err := conn.Exec(t.Context(), "SELECT pg_advisory_lock($1)", int64(upstreamLock)); err != nil {
					t.Fatal(err)
				}
			}
			s := open(t, postgres.Config{URL: core.Secret(cluster.PgBouncer(t, test.connections)(url))})
			lines := make(chan string, 10)
			ctx, cancel := context.WithCancel(t.Context())
			migrating := start(func() error {
				return s.Migrate(ctx, store.MigrateOptions{Logger: slog.New(slog.NewTextHandler(logLines(lines), nil))})
			})
			select {
			case line := <-lines:
				if !strings.Contains(line, test.want) {
					t.Errorf("it says %q, want %q", line, test.want)
				}
			case err := <-migrating:
				t.Fatalf("it ended with %v", err)
			}
			cancel()
			if err := <-migrating; !errors.Is(err, core.ErrStoreUnavailable) {
				t.Errorf("cancelled, it ended with %v", err)
			}
		})
	}
}

// logLines are the lines that a logger writes.
type logLines chan string

func (l logLines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}
