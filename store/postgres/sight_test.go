package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/rotation"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/postgres"
)

// seen is a store with a record under a retired data key, as a role sees it.
type seen struct {
	*postgres.Store
	db            *sql.DB // of the superuser
	url           string  // of the superuser
	server, owner string  // roles
	old, primary  envelope.KeyID
}

// seenBy makes the store, owned by one role and used by another that has all rights on
// its tables, and opens it as that or, with asOwner, as the owner. Before that, sql is
// run, in which :server and :owner stand for the roles.
func seenBy(t *testing.T, asOwner bool, prepare string) *seen {
	t.Helper()
	cluster := pgtest.Shared(t)
	url := cluster.NewDatabase(t)
	name := databaseName(url)
	s := &seen{server: name + "_server", owner: name + "_owner", url: url, db: openSQL(t, url)}
	s.run(t, "CREATE ROLE :owner LOGIN; CREATE ROLE :server LOGIN; CREATE SCHEMA forest AUTHORIZATION :owner; GRANT USAGE ON SCHEMA forest TO :server")
	openMigrated(t, postgres.Config{URL: core.Secret(cluster.URL(s.owner, name))})
	s.run(t, "GRANT ALL ON ALL TABLES IN SCHEMA forest TO :server; "+prepare)
	role := s.server
	if asOwner {
		role = s.owner
	}
	s.Store = open(t, postgres.Config{URL: core.Secret(cluster.URL(role, name))})

	admin := open(t, postgres.Config{URL: core.Secret(url)})
	first, second := newKey(), newKey()
	first.Wraps = append(first.Wraps, core.WrappedKey{KEKID: "test:key#2", Wrapped: []byte("w")})
	second.Version, second.Replaces = 2, first.ID
	for _, err := range []error{
		admin.InsertDataKey(t.Context(), first),
		admin.Upsert(t.Context(), sealedRow(first.ID, "server"), first.ID, 0),
		admin.InsertDataKey(t.Context(), second),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s.old, s.primary = first.ID, second.ID
	return s
}

func (s *seen) run(t *testing.T, sql string) {
	t.Helper()
	pgtest.Exec(t, s.url, strings.NewReplacer(":server", s.server, ":owner", s.owner).Replace(sql))
}

// state is everything that could be lost.
func (s *seen) state(t *testing.T) (text string) {
	t.Helper()
	err := s.db.QueryRowContext(t.Context(), `SELECT concat_ws(E'\n', (SELECT string_agg(k::text, E'\n' ORDER BY version) FROM forest.lockwood_data_keys AS k),
		(SELECT string_agg(w::text, E'\n' ORDER BY w::text) FROM forest.lockwood_data_key_wraps AS w), (SELECT legacy FROM forest.lockwood_store))`).Scan(&text)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// looking is everything that counts or looks before something is destroyed, or that
// destroys.
func (s *seen) looking() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"DestroyDataKey": func(ctx context.Context) error { _, err := s.DestroyDataKey(ctx, s.old); return err },
		"RemoveWraps":    func(ctx context.Context) error { return s.RemoveWraps(ctx, s.old, []core.KEKID{"test:key#2"}) },
		"CloseLegacy":    func(ctx context.Context) error { _, err := s.CloseLegacy(ctx); return err },
		"Counts":         func(ctx context.Context) error { _, err := s.Counts(ctx); return err },
		"Scan":           func(ctx context.Context) error { _, err := s.Scan(ctx, 0, 10); return err },
		"LegacySample":   func(ctx context.Context) error { _, err := s.LegacySample(ctx, 10); return err },
		"Span":           func(ctx context.Context) error { _, _, _, err := s.Span(ctx); return err },
		"HasStale":       func(ctx context.Context) error { _, err := s.HasStale(ctx, s.primary); return err },
		"SampleStale":    func(ctx context.Context) error { _, _, _, err := s.SampleStale(ctx, s.primary, 0, 10); return err },
		"ScanStale":      func(ctx context.Context) error { _, err := s.ScanStale(ctx, s.primary, 0, 100, 10); return err },
	}
}

// isRight holds what looks and what destroys to what is there: a record under the
// retired data key, and two wraps of it.
func (s *seen) isRight(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	if n, err := s.DestroyDataKey(ctx, s.old); n != 1 || !errors.Is(err, keyring.ErrInUse) {
		t.Errorf("destroying the data key of a record: %d, %v; want 1, keyring.ErrInUse", n, err)
	}
	if c, err := s.Counts(ctx); err != nil || c.ByKey[s.old] != 1 {
		t.Errorf("counts are %+v, %v; want the record", c, err)
	}
	if stale, err := s.HasStale(ctx, s.primary); err != nil || !stale {
		t.Errorf("HasStale is %v, %v; want the record to be stale", stale, err)
	}
	if rows, err := s.ScanStale(ctx, s.primary, 0, 100, 10); err != nil || len(rows) != 1 {
		t.Errorf("ScanStale found %d rows, %v; want 1", len(rows), err)
	}
	if err := s.RemoveWraps(ctx, s.old, []core.KEKID{"test:key#1", "test:key#2"}); !errors.Is(err, keyring.ErrConflict) {
		t.Errorf("removing every wrap: %v, want keyring.ErrConflict", err)
	}
	if existed, err := s.Delete(ctx, 1, "server"); err != nil || !existed {
		t.Errorf("Delete: %v, %v; want the credential gone", existed, err)
	}
	if existed, err := s.Delete(ctx, 1, "server"); err != nil || existed {
		t.Errorf("Delete of nothing: %v, %v", existed, err)
	}
	if n, err := s.DestroyDataKey(ctx, s.old); n != 0 || err != nil {
		t.Errorf("destroying the data key of nothing: %d, %v", n, err)
	}
}

const enableOnCredentials = "ALTER TABLE forest.ai_mcp_oauth_credentials ENABLE ROW LEVEL SECURITY;"

// Where rows may be hidden nothing is counted, removed or destroyed, and with the
// remedy everything goes through.
func TestNothingIsDestroyedUnseen(t *testing.T) {
	const credentials = `"forest"."ai_mcp_oauth_credentials"`
	for name, test := range map[string]struct {
		asOwner    bool
		hide, mend string
		want       store.Finding
		rowHidden  bool // from DELETE, too
	}{
		"no policy": {
			hide: enableOnCredentials, mend: "ALTER ROLE :server BYPASSRLS", rowHidden: true,
			want: store.Finding{Condition: store.RowsHidden, Object: credentials},
		},
		"a policy for one user": {
			hide: enableOnCredentials + "CREATE POLICY p ON forest.ai_mcp_oauth_credentials USING (user_id = 2)",
			mend: "ALTER TABLE forest.ai_mcp_oauth_credentials OWNER TO :server", rowHidden: true,
			want: store.Finding{Condition: store.RowsHidden, Object: credentials},
		},
		"true, and a policy that restricts": {
			hide: enableOnCredentials + "CREATE POLICY p ON forest.ai_mcp_oauth_credentials USING (true);" +
				"CREATE POLICY q ON forest.ai_mcp_oauth_credentials AS RESTRICTIVE USING (user_id = 2)",
			mend: "DROP POLICY q ON forest.ai_mcp_oauth_credentials", rowHidden: true,
			want: store.Finding{Condition: store.RowsHidden, Object: credentials},
		},
		"true for reading alone": {
			hide: enableOnCredentials + "CREATE POLICY p ON forest.ai_mcp_oauth_credentials FOR SELECT USING (true)",
			mend: "ALTER TABLE forest.ai_mcp_oauth_credentials DISABLE ROW LEVEL SECURITY", rowHidden: true,
			want: store.Finding{Condition: store.RowsHidden, Object: credentials},
		},
		"true for a role that can be revoked": {
			hide: enableOnCredentials + "CREATE ROLE :server_group; GRANT :server_group TO :server; CREATE POLICY p ON forest.ai_mcp_oauth_credentials TO :server_group USING (true)",
			mend: "ALTER POLICY p ON forest.ai_mcp_oauth_credentials TO :server",
			want: store.Finding{Condition: store.RowsHidden, Object: credentials},
		},
		"forced on the owner": {
			asOwner: true, hide: enableOnCredentials + "ALTER TABLE forest.ai_mcp_oauth_credentials FORCE ROW LEVEL SECURITY",
			mend: "ALTER TABLE forest.ai_mcp_oauth_credentials NO FORCE ROW LEVEL SECURITY", rowHidden: true,
			want: store.Finding{Condition: store.RowsHidden, Object: credentials},
		},
		"data keys": {
			hide: "ALTER TABLE forest.lockwood_data_keys ENABLE ROW LEVEL SECURITY", mend: "ALTER ROLE :server BYPASSRLS",
			want: store.Finding{Condition: store.RowsHidden, Object: `"forest"."lockwood_data_keys"`},
		},
		"wraps": {
			hide: "ALTER TABLE forest.lockwood_data_key_wraps ENABLE ROW LEVEL SECURITY", mend: "ALTER TABLE forest.lockwood_data_key_wraps OWNER TO :server",
			want: store.Finding{Condition: store.RowsHidden, Object: `"forest"."lockwood_data_key_wraps"`},
		},
		"a view in the table's place": {
			hide: "ALTER TABLE forest.ai_mcp_oauth_credentials RENAME TO kept;" +
				"CREATE VIEW forest.ai_mcp_oauth_credentials AS SELECT * FROM forest.kept WHERE user_id = 2; GRANT ALL ON forest.ai_mcp_oauth_credentials TO :server",
			mend: "DROP VIEW forest.ai_mcp_oauth_credentials; ALTER TABLE forest.kept RENAME TO ai_mcp_oauth_credentials", rowHidden: true,
			want: store.Finding{Condition: store.NotATable, Object: credentials, Detail: "view"},
		},
		"a rule": {
			hide: "CREATE RULE r AS ON DELETE TO forest.ai_mcp_oauth_credentials DO INSTEAD NOTHING",
			mend: "DROP RULE r ON forest.ai_mcp_oauth_credentials", rowHidden: true,
			want: store.Finding{Condition: store.Rewritten, Object: credentials, Detail: "rules"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := seenBy(t, test.asOwner, "")
			s.run(t, test.hide) // while the store is open
			before := s.state(t)
			if test.want.Role = s.server; test.asOwner {
				test.want.Role = s.owner
			}
			for what, call := range s.looking() {
				err := call(t.Context())
				unseen, ok := errors.AsType[*store.UnseenError](err)
				if !ok || !errors.Is(err, core.ErrRowsHidden) || len(unseen.Findings) != 1 || unseen.Findings[0] != test.want {
					t.Errorf("%s: %v, want %v", what, err, test.want)
				}
			}
			if existed, err := s.Delete(t.Context(), 1, "server"); test.rowHidden && (existed || !errors.Is(err, core.ErrRowsHidden)) {
				t.Errorf("deleting a hidden row: %v, %v; want core.ErrRowsHidden", existed, err)
			}
			if after := s.state(t); after != before {
				t.Errorf("the store changed from\n%s\nto\n%s", before, after)
			}
			s.run(t, test.mend)
			if test.rowHidden {
				s.isRight(t)
			}
		})
	}
}

// What shows every row is not refused.
func TestEverythingSeenIsNotRefused(t *testing.T) {
	for name, test := range map[string]struct {
		asOwner bool
		prepare string
	}{
		"no row-level security": {},
		"true for everyone":     {prepare: enableOnCredentials + "CREATE POLICY p ON forest.ai_mcp_oauth_credentials USING (true)"},
		"true for the role, forced on the owner": {prepare: enableOnCredentials + "ALTER TABLE forest.ai_mcp_oauth_credentials FORCE ROW LEVEL SECURITY;" +
			"CREATE POLICY p ON forest.ai_mcp_oauth_credentials TO :server USING (true); CREATE POLICY q ON forest.ai_mcp_oauth_credentials USING (user_id = 2)"},
		"true for each command": {prepare: enableOnCredentials + "CREATE POLICY r ON forest.ai_mcp_oauth_credentials FOR SELECT USING (true);" +
			"CREATE POLICY w ON forest.ai_mcp_oauth_credentials FOR UPDATE USING (true); CREATE POLICY d ON forest.ai_mcp_oauth_credentials FOR DELETE USING (true)"},
		"true on every table": {prepare: enableOnCredentials + "CREATE POLICY p ON forest.ai_mcp_oauth_credentials USING (true);" +
			"ALTER TABLE forest.lockwood_data_keys ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON forest.lockwood_data_keys USING (true);" +
			"ALTER TABLE forest.lockwood_data_key_wraps ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON forest.lockwood_data_key_wraps USING (true)"},
		"the owner":      {asOwner: true, prepare: enableOnCredentials},
		"bypassing":      {prepare: enableOnCredentials + "ALTER ROLE :server BYPASSRLS"},
		"off for a role": {prepare: enableOnCredentials + "CREATE POLICY p ON forest.ai_mcp_oauth_credentials USING (true); ALTER ROLE :server SET row_security = off"},
		"a view beside":  {prepare: "CREATE VIEW forest.lockwood_report AS SELECT 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := seenBy(t, test.asOwner, test.prepare)
			if name == "off for a role" { // where a bare DELETE fails; what looks does not
				if c, err := s.Counts(t.Context()); err != nil || c.Credentials != 1 {
					t.Errorf("counts are %+v, %v", c, err)
				}
				return
			}
			s.isRight(t)
		})
	}
}

// A role's search path puts functions and operators of another schema before
// PostgreSQL's: what looks before something is destroyed does not use them.
func TestReplacedFunctionsAreNotUsed(t *testing.T) {
	s := seenBy(t, false, `CREATE SCHEMA other; GRANT USAGE ON SCHEMA other TO :server;
CREATE FUNCTION other.substr(bytea, integer, integer) RETURNS bytea LANGUAGE sql IMMUTABLE AS 'SELECT ''other''::bytea';
CREATE FUNCTION other.never(bytea, bytea) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false';
CREATE FUNCTION other.never(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false';
CREATE FUNCTION other.never(bigint, bigint) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false';
CREATE OPERATOR other.= (FUNCTION = other.never, LEFTARG = bytea, RIGHTARG = bytea);
CREATE OPERATOR other.<> (FUNCTION = other.never, LEFTARG = bytea, RIGHTARG = bytea);
CREATE OPERATOR other.= (FUNCTION = other.never, LEFTARG = text, RIGHTARG = text);
CREATE OPERATOR other.> (FUNCTION = other.never, LEFTARG = bigint, RIGHTARG = bigint);
ALTER ROLE :server SET search_path = other, pg_catalog`)
	var nothing bool
	if err := pgtest.Connect(t, pgtest.Shared(t).URL(s.server, databaseName(s.url))).QueryRow(t.Context(),
		"SELECT 'a'::text = 'a'::text OR substr('a'::bytea, 1, 1) = 'a'::bytea").Scan(&nothing); err != nil || nothing {
		t.Fatalf("the operators are not replaced: %v, %v", nothing, err)
	}
	s.isRight(t)
	if remaining, err := s.CloseLegacy(t.Context()); remaining != 0 || errors.Is(err, rotation.ErrLegacyRemains) {
		t.Errorf("closing legacy: %d, %v; want none to remain", remaining, err)
	}
}

// While what looks before something is destroyed is under way, nobody can hide rows.
func TestRowsCannotBeHiddenMeanwhile(t *testing.T) {
	s := seenBy(t, false, "")
	for _, statement := range []string{
		"ALTER TABLE forest.ai_mcp_oauth_credentials ENABLE ROW LEVEL SECURITY",
		"CREATE POLICY p ON forest.ai_mcp_oauth_credentials USING (false)",
		"ALTER TABLE forest.ai_mcp_oauth_credentials RENAME TO other",
		"CREATE RULE r AS ON DELETE TO forest.lockwood_data_key_wraps DO INSTEAD NOTHING",
	} {
		tried := make(chan error, 1)
		stop := &stopAt{text: "SELECT coalesce(sum(", at: func() {
			_, err := pgtest.Connect(t, s.url).PgConn().Exec(t.Context(), "SET lock_timeout = '200ms'; "+statement).ReadAll()
			tried <- err
		}}
		looking := open(t, postgres.Config{URL: core.Secret(s.url), Tracer: stop})
		if n, err := looking.DestroyDataKey(t.Context(), s.old); n != 1 || !errors.Is(err, keyring.ErrInUse) {
			t.Errorf("%s: destroying: %d, %v", statement, n, err)
		}
		server, ok := errors.AsType[*pgconn.PgError](<-tried)
		if !ok || server.Code != "55P03" {
			t.Errorf("%s went through meanwhile: %v", statement, server)
		}
	}
}

// stopAt calls at before the statement that begins with text.
type stopAt struct {
	text string
	at   func()
}

func (s *stopAt) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	if strings.HasPrefix(q.SQL, s.text) {
		s.at()
	}
	return ctx
}

func (s *stopAt) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
