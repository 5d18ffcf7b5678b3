package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// asRole makes a role with all rights on the store that does not own it, and returns
// its name, and the configuration by which it reaches the database.
func (d *testDatabase) asRole(t *testing.T) (role string, env []string) {
	t.Helper()
	name := strings.TrimPrefix(strings.Split(d.url, "?")[0], "postgres://")
	name = name[strings.LastIndex(name, "/")+1:]
	role = name + "_app"
	d.exec(t, "CREATE ROLE "+role+" LOGIN")
	d.exec(t, "GRANT USAGE, CREATE ON SCHEMA forest TO "+role)
	d.exec(t, "GRANT ALL ON ALL TABLES IN SCHEMA forest TO "+role)
	return role, d.with("DATABASE_URL=" + d.pg.URL(role, name))
}

const enableRowSecurity = "ALTER TABLE forest.ai_mcp_oauth_credentials ENABLE ROW LEVEL SECURITY"

// The commands that destroy, each of which stops where rows may be hidden.
var destroying = map[string][]string{
	"re-seal":     {"key", "rotate", "--reseal", "--wait"},
	"compromised": {"key", "rotate", "--compromised", "--wait"},
	"rewrap":      {"key", "rotate"},
	"prune":       {"key", "prune", "--force"},
	"close":       {"key", "legacy", "close", "--yes"},
}

// Row-level security that hides every credential from a role loses none of them:
// each command that destroys stops, names the remedy, and goes through after it.
func TestHiddenRowsAreNotLost(t *testing.T) {
	for what, command := range destroying {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			d := postgresDatabase(t, pgtest.Shared(t))
			fill(t, d.env, 3)
			role, env := d.asRole(t)
			env = append(env, "FOREST_EXECUTOR_ENCRYPTION_KEY="+otherKey, "FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS="+testKey)
			d.exec(t, enableRowSecurity)
			before := d.lossless(t)
			r := do(t, env, command...)
			if r.code != exitFound || !strings.Contains(r.stderr, "may hide rows") || !strings.Contains(r.stderr, "ALTER ROLE "+role+" BYPASSRLS") {
				t.Errorf("%d\n%s%s", r.code, r.stdout, r.stderr)
			}
			if after := d.lossless(t); after != before {
				t.Errorf("the store changed from\n%s\nto\n%s", before, after)
			}
			d.exec(t, "ALTER ROLE "+role+" BYPASSRLS")
			if what == "close" { // which wants the owner
				d.exec(t, "ALTER TABLE forest.ai_mcp_oauth_credentials OWNER TO "+role)
			}
			if r := do(t, env, command...); r.code != exitOK && r.code != exitFound || strings.Contains(r.stderr, "hide") {
				t.Errorf("after the remedy: %d\n%s%s", r.code, r.stdout, r.stderr)
			}
			if report := verify(t, d.changedKey(), exitOK); report.OK != 3 {
				t.Errorf("after the remedy: %+v", report)
			}
		})
	}
}

// Whatever hides rows, or replaces what looks for them, stops every command that
// destroys, in a store in use; after the remedy a re-seal goes through.
func TestEveryCommandThatDestroysStops(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ hide, said, mend string }{
		"wraps": {
			"ALTER TABLE forest.lockwood_data_key_wraps ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON forest.lockwood_data_key_wraps FOR SELECT USING (true)",
			"may hide rows", "ALTER ROLE :role BYPASSRLS",
		},
		"instances": {
			"ALTER TABLE forest.lockwood_instances ENABLE ROW LEVEL SECURITY", "may hide rows", "ALTER TABLE forest.lockwood_instances DISABLE ROW LEVEL SECURITY",
		},
		"view": {
			"ALTER TABLE forest.ai_mcp_oauth_credentials RENAME TO kept; CREATE VIEW forest.ai_mcp_oauth_credentials AS SELECT * FROM forest.kept WHERE user_id = 2;" +
				"GRANT ALL ON forest.ai_mcp_oauth_credentials TO :role",
			"is no table", "DROP VIEW forest.ai_mcp_oauth_credentials; ALTER TABLE forest.kept RENAME TO ai_mcp_oauth_credentials",
		},
		"rule": {
			"CREATE RULE r AS ON UPDATE TO forest.ai_mcp_oauth_credentials DO INSTEAD NOTHING", "rules on", "DROP RULE r ON forest.ai_mcp_oauth_credentials",
		},
		"search path": {
			"CREATE SCHEMA other; GRANT USAGE ON SCHEMA other TO :role; CREATE FUNCTION other.substr(bytea, integer, integer) RETURNS bytea LANGUAGE sql AS 'SELECT NULL::bytea';" +
				"ALTER ROLE :role SET search_path = other, pg_catalog",
			"search path of", "ALTER ROLE :role RESET search_path",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := postgresDatabase(t, pgtest.Shared(t))
			fill(t, d.env, 3)
			role, env := d.asRole(t)
			env = append(env, "FOREST_EXECUTOR_ENCRYPTION_KEY="+otherKey, "FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS="+testKey)
			old := d.status(t, d.env).DataKeys[0].KeyID
			d.exec(t, strings.ReplaceAll(test.hide, ":role", role))
			before := d.counted(t)
			for _, command := range append(slices.Collect(maps.Values(destroying)), []string{"key", "destroy", old}) {
				r := do(t, env, command...)
				if r.code != exitFound || !strings.Contains(r.stderr, test.said) || !strings.Contains(r.stderr, "→ ") {
					t.Errorf("%v: %d\n%s%s", command, r.code, r.stdout, r.stderr)
				}
			}
			if after := d.counted(t); after != before {
				t.Errorf("data keys and wraps were %s, and are %s", before, after)
			}
			d.exec(t, strings.ReplaceAll(test.mend, ":role", role))
			report := rotated(t, do(t, env, "key", "rotate", "--reseal", "--wait", "--json"))
			if report.Verified.OK != 3 || len(report.Destroyed) != 1 {
				t.Errorf("after the remedy: %+v", report)
			}
		})
	}
}

// counted is how many data keys are enabled, and how many wraps there are.
func (d *testDatabase) counted(t *testing.T) string {
	t.Helper()
	return fmt.Sprint(d.count(t, "forest.lockwood_data_keys WHERE state = 'enabled'"), d.count(t, "forest.lockwood_data_key_wraps"))
}

// lossless is what no command may change while rows are hidden: the data keys and the
// records. Wraps may be added.
func (d *testDatabase) lossless(t *testing.T) (text string) {
	t.Helper()
	err := d.db.QueryRowContext(t.Context(), `SELECT concat_ws(E'\n', (SELECT string_agg(concat(key_id, state), E'\n' ORDER BY version) FROM forest.lockwood_data_keys),
		(SELECT string_agg(concat(id, refresh_token_enc), E'\n' ORDER BY id) FROM forest.ai_mcp_oauth_credentials))`).Scan(&text)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A DELETE that finds nothing because the row is hidden does not say that it is gone.
func TestDeletingAHiddenCredential(t *testing.T) {
	t.Parallel()
	d := postgresDatabase(t, pgtest.Shared(t))
	fill(t, d.env, 1)
	role, env := d.asRole(t)
	s := serve(t, env).ready(t)
	d.exec(t, enableRowSecurity) // while it serves
	if a := s.call(t, 1, "DELETE", "/mcp-oauth-credentials/server-0", ""); a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "database_hides_rows") {
		t.Errorf("a hidden credential: %d %s", a.status, a.body)
	}
	d.exec(t, "ALTER ROLE "+role+" BYPASSRLS")
	for range 2 {
		if a := s.call(t, 1, "DELETE", "/mcp-oauth-credentials/server-0", ""); a.status != http.StatusNoContent {
			t.Errorf("a credential that is seen, and then gone: %d %s", a.status, a.body)
		}
	}
	if n := d.count(t, d.table); n != 0 {
		t.Errorf("%d credentials are left", n)
	}
}
