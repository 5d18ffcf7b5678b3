package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/store/postgres"
)

// logged is what a store logs. It is safe for concurrent use.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(l, nil)) }

// lines returns how often the store said that it gives up preparing statements.
func (l *logged) lines(t *testing.T) int {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	n := strings.Count(l.text.String(), "\n")
	if strings.Count(l.text.String(), "DATABASE_PREPARED_STATEMENTS=false") != n {
		t.Errorf("the log is\n%s", l.text.String())
	}
	return n
}

// withDataKey returns a database with a store and a data key in it.
func withDataKey(t *testing.T) (url string, key envelope.KeyID) {
	t.Helper()
	url = pgtest.Shared(t).NewDatabase(t)
	s, k := openMigrated(t, postgres.Config{URL: core.Secret(url)}), newKey()
	if err := s.InsertDataKey(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	return url, k.ID
}

// useAll makes the calls that a service makes, for one user, and returns an error if one
// of them fails or does not what it should.
func useAll(ctx context.Context, s *postgres.Store, key envelope.KeyID, user int64) error {
	for round := range 2 { // a new row, and one that is there
		row := sealedRow(key, "server")
		row.UserID, row.RefreshTokenEnc = user, append(row.RefreshTokenEnc, byte(round))
		if err := s.Upsert(ctx, row, key, 1); err != nil {
			return err
		}
		got, err := s.Get(ctx, user, "server")
		if err != nil {
			return err
		}
		if !bytes.Equal(got.RefreshTokenEnc, row.RefreshTokenEnc) {
			return fmt.Errorf("user %d got %q, want %q", user, got.RefreshTokenEnc, row.RefreshTokenEnc)
		}
	}
	list, err := s.List(ctx, user, nil, 10)
	if err == nil && len(list) != 1 {
		err = fmt.Errorf("user %d has %d credentials", user, len(list))
	}
	reserved, reserving := s.ReserveSeals(ctx, key, 1, 1<<30)
	if reserving == nil && !reserved {
		reserving = errors.New("no seals are reserved")
	}
	_, loading := s.LoadRing(ctx)
	_, counting := s.Counts(ctx)
	_, scanning := s.Scan(ctx, 0, 10)
	existed, deleting := s.Delete(ctx, user, "server")
	if deleting == nil && !existed {
		deleting = fmt.Errorf("the credential of user %d is gone already", user)
	}
	return errors.Join(err, reserving, loading, counting, scanning, deleting)
}

// crowd has several users use the stores at once until enough is true, and some rounds
// more. No call may fail.
func crowd(t *testing.T, key envelope.KeyID, enough func() bool, stores ...*postgres.Store) {
	t.Helper()
	const users, more = 6, 3
	done := make(chan struct{})
	var workers sync.WaitGroup
	for i := range users {
		workers.Go(func() {
			for left := more; left > 0; {
				if err := useAll(t.Context(), stores[i%len(stores)], key, int64(i+1)); err != nil {
					t.Errorf("user %d: %v", i+1, err)
					return
				}
				select {
				case <-done:
					left--
				default:
				}
			}
		})
	}
	pgtest.Eventually(t, "the users did enough", func() bool { return t.Failed() || enough() })
	close(done)
	workers.Wait()
}

// Behind a pooler that does not keep prepared statements, the store finds that out, says
// so once and goes on without them. No call fails for it.
func TestPreparedStatementsAreGivenUp(t *testing.T) {
	cluster := pgtest.Shared(t)
	for name, settings := range map[string][]string{
		"transaction mode":                    nil,
		"transaction mode with DISCARD ALL":   {"server_reset_query = DISCARD ALL", "server_reset_query_always = 1"},
		"transaction mode, connections short": {"server_lifetime = 0"},
	} {
		t.Run(name, func(t *testing.T) {
			direct, key := withDataKey(t)
			url := cluster.PgBouncer(t, 3, settings...)(direct)
			var log, other logged
			s := open(t, postgres.Config{URL: core.Secret(url), Logger: log.logger()})
			second := open(t, postgres.Config{URL: core.Secret(url), Logger: other.logger()})
			crowd(t, key, func() bool { return log.lines(t) > 0 && other.lines(t) > 0 }, s, second)
			if log.lines(t) != 1 || other.lines(t) != 1 {
				t.Errorf("the stores said so %d and %d times, want once each", log.lines(t), other.lines(t))
			}
		})
	}
}

// The setting decides; what is decided works, if with repeats.
func TestPreparedStatementsAsConfigured(t *testing.T) {
	cluster := pgtest.Shared(t)
	for _, setting := range []string{"true", "false"} {
		direct, key := withDataKey(t)
		url := cluster.PgBouncer(t, 3)(direct) + "&statement_cache_capacity=0&description_cache_capacity=0&default_query_exec_mode=simple_protocol"
		var log logged
		s := open(t, postgres.Config{URL: core.Secret(url), Logger: log.logger(), PreparedStatements: setting})
		crowd(t, key, func() bool { return true }, s)
		if n := log.lines(t); n != 0 {
			t.Errorf("%s: the store changed its mind %d times", setting, n)
		}
	}
	if _, err := postgres.Open(t.Context(), postgres.Config{URL: "postgres://h/d", PreparedStatements: "maybe"}); err == nil {
		t.Error("a setting that there is not is accepted")
	}
}

// A pooler in session mode keeps prepared statements for as long as a client stays, and
// so they are used.
func TestPreparedStatementsBehindASessionPooler(t *testing.T) {
	direct, key := withDataKey(t)
	url := pgtest.Shared(t).PgBouncer(t, 4, "pool_mode = session", "server_reset_query = DISCARD ALL")(direct)
	var log logged
	for range 3 { // each gets the sessions of the one before
		s := open(t, postgres.Config{URL: core.Secret(url), Logger: log.logger(), MaxConns: 4})
		crowd(t, key, func() bool { return true }, s)
		s.Close()
	}
	if n := log.lines(t); n != 0 {
		t.Errorf("prepared statements were given up %d times", n)
	}
}

// While instances serve, a migration changes what their statements return. No call
// fails, and statements stay prepared.
func TestAMigrationWhileInstancesServe(t *testing.T) {
	for _, setting := range []string{"auto", "false"} {
		t.Run(setting, func(t *testing.T) {
			url, key := withDataKey(t)
			var log logged
			cfg := postgres.Config{URL: core.Secret(url), Logger: log.logger(), PreparedStatements: setting}
			s, second := open(t, cfg), open(t, cfg)
			db := pgtest.Connect(t, url)
			changes := []string{
				"ALTER TABLE forest.ai_mcp_oauth_credentials ALTER COLUMN scopes TYPE text",
				"ALTER TABLE forest.ai_mcp_oauth_credentials ALTER COLUMN token_endpoint TYPE text, ADD COLUMN added text",
				"ALTER TABLE forest.lockwood_data_key_wraps ALTER COLUMN kek_id TYPE varchar(2000)",
				"ALTER TABLE forest.ai_mcp_oauth_credentials ALTER COLUMN user_id TYPE bigint",
			}
			crowd(t, key, func() bool {
				if len(changes) == 0 {
					return true
				}
				if _, err := db.Exec(t.Context(), changes[0]); err != nil {
					t.Errorf("migrating: %v", err)
				}
				changes = changes[1:]
				return false
			}, s, second)
			if n := log.lines(t); n != 0 {
				t.Errorf("prepared statements were given up %d times", n)
			}
		})
	}
}

// What a deposit checks is the same whether its statement is prepared or not, also
// where the role's search path puts other operators before PostgreSQL's.
func TestADepositChecksTheSame(t *testing.T) {
	for _, setting := range []string{"true", "false"} {
		a, _, db, old := raced(t)
		url := db.Config().ConnString()
		pgtest.Exec(t, url, `CREATE SCHEMA other;
			CREATE FUNCTION other.always(bytea, bytea) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
			CREATE FUNCTION other.always(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
			CREATE FUNCTION other.never(bigint, bigint) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false';
			CREATE OPERATOR other.= (FUNCTION = other.always, LEFTARG = bytea, RIGHTARG = bytea);
			CREATE OPERATOR other.= (FUNCTION = other.always, LEFTARG = text, RIGHTARG = text);
			CREATE OPERATOR other.> (FUNCTION = other.never, LEFTARG = bigint, RIGHTARG = bigint)`)
		if _, err := a.DestroyDataKey(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		ring, err := a.LoadRing(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pgtest.Exec(t, url, "ALTER DATABASE "+databaseName(url)+" SET search_path = other, pg_catalog")
		s, key := open(t, postgres.Config{URL: core.Secret(url), PreparedStatements: setting}), ring.Primary().ID
		deposit := func(server string, under envelope.KeyID, quota int) error {
			return s.Upsert(t.Context(), sealedRow(under, server), under, quota)
		}
		for range 7 { // the first executions have plans of their own
			if err := deposit("one", key, 2); err != nil {
				t.Errorf("%s: within the quota: %v", setting, err)
			}
			if err := deposit("two", key, 2); err != nil {
				t.Errorf("%s: within the quota: %v", setting, err)
			}
			if err := deposit("three", key, 2); !errors.Is(err, credential.ErrQuotaExceeded) {
				t.Errorf("%s: beyond the quota: %v", setting, err)
			}
			for _, gone := range []envelope.KeyID{old, {9}} {
				if err := deposit("one", gone, 2); !errors.Is(err, keyring.ErrNotEnabled) {
					t.Errorf("%s: under a key that is destroyed, or none: %v", setting, err)
				}
			}
		}
		var rows int
		if err := db.QueryRow(t.Context(), "SELECT count(*) FROM forest.ai_mcp_oauth_credentials").Scan(&rows); err != nil || rows != 2 {
			t.Errorf("%s: %d rows, %v", setting, rows, err)
		}
	}
}
