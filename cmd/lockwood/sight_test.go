package main

import (
	"net/http"
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
	for name, hide := range map[string]string{
		"credentials": enableRowSecurity,
		"wraps":       "ALTER TABLE forest.lockwood_data_key_wraps ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON forest.lockwood_data_key_wraps FOR SELECT USING (true)",
	} {
		for what, command := range destroying {
			t.Run(name+"/"+what, func(t *testing.T) {
				t.Parallel()
				d := postgresDatabase(t, pgtest.Shared(t))
				fill(t, d.env, 3)
				role, env := d.asRole(t)
				env = append(env, "FOREST_EXECUTOR_ENCRYPTION_KEY="+otherKey, "FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS="+testKey)
				old := d.status(t, d.env).DataKeys[0].KeyID
				d.exec(t, hide)
				before := d.lossless(t)
				commands := [][]string{command, {"key", "destroy", old}}
				for _, args := range commands {
					r := do(t, env, args...)
					if r.code != exitFound || !strings.Contains(r.stderr, "may hide rows") || !strings.Contains(r.stderr, "ALTER ROLE "+role+" BYPASSRLS") {
						t.Errorf("%v: %d\n%s%s", args, r.code, r.stdout, r.stderr)
					}
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
