package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// A database that is not in UTF-8 takes what it can hold, refuses the rest as the
// client's to mend, and doctor warns of it.
func TestADatabaseInLatin1(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Shared(t)
	admin := cluster.URL(pgtest.Superuser, "postgres")
	pgtest.Exec(t, admin, "DROP DATABASE IF EXISTS latin WITH (FORCE)")
	pgtest.Exec(t, admin, "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
	env := append(keysOf(cluster.URL(pgtest.Superuser, "latin")), "DATABASE_SSL=false")
	s := serve(t, env).ready(t)
	if a := s.deposit(t, 1, "café", "token"); a.status != http.StatusOK {
		t.Errorf("what it can hold: %d %s", a.status, a.body)
	}
	if a := s.deposit(t, 1, "5 €", "token"); a.status != http.StatusBadRequest || strings.Contains(a.body, "€") {
		t.Errorf("what it cannot hold: %d %s", a.status, a.body)
	}
	if a := s.call(t, 1, "GET", "/mcp-oauth-credentials", ""); !strings.Contains(a.body, `"café"`) {
		t.Errorf("listed %s", a.body)
	}
	for line := range strings.Lines(s.log.String()) {
		if strings.Contains(line, "€") && !strings.Contains(line, `"msg":"audit"`) {
			t.Errorf("the log repeats the value: %s", line)
		}
	}
	if lines := s.log.audits(t, "deposit")["5 €"]; len(lines) != 1 || lines[0].Outcome != "refused" || lines[0].Reason != "unstorable_character" {
		t.Errorf("audited as %+v", lines)
	}
	if list := found(t, env, "encoding"); len(list) != 1 || list[0].Verdict != verdictWarn {
		t.Errorf("doctor says %+v", list)
	}
	if a := s.call(t, 1, "DELETE", "/mcp-oauth-credentials/5%20%E2%82%AC", ""); a.status != http.StatusNoContent {
		t.Errorf("deleting what cannot be there: %d %s", a.status, a.body)
	}
	if a := s.call(t, 1, "DELETE", "/mcp-oauth-credentials/caf%C3%A9", ""); a.status != http.StatusNoContent {
		t.Errorf("deleting: %d %s", a.status, a.body)
	}
}

// What was deposited on a database in any encoding opens after a dump was restored into
// one in UTF-8.
func TestADumpIntoUTF8(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Shared(t)
	for encoding, servers := range map[string][]string{
		"LATIN1":    {"café", "plain", "ÿ"},
		"UTF8":      {"café", "5 €", "\U0001f510", "plain"},
		"SQL_ASCII": {"café", "5 €", "\U0001f510", "plain"},
	} {
		from := "dump_" + strings.ToLower(encoding)
		pgtest.Exec(t, cluster.URL(pgtest.Superuser, "postgres"), "DROP DATABASE IF EXISTS "+from+" WITH (FORCE)")
		pgtest.Exec(t, cluster.URL(pgtest.Superuser, "postgres"),
			"CREATE DATABASE "+from+" ENCODING '"+encoding+"' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
		url := cluster.URL(pgtest.Superuser, from)
		s := serve(t, append(keysOf(url), "DATABASE_SSL=false")).ready(t)
		for _, server := range servers {
			if a := s.deposit(t, 1, server, "token"); a.status != http.StatusOK {
				t.Fatalf("%s: depositing %q: %d %s", encoding, server, a.status, a.body)
			}
		}
		s.stop(t)

		restored := cluster.NewDatabase(t)
		cluster.Copy(t, url, restored)
		env := append(keysOf(restored), "DATABASE_SSL=false")
		if report := verify(t, env, exitOK); report.OK != int64(len(servers)) {
			t.Errorf("%s: %+v", encoding, report)
		}
		again := serve(t, env).ready(t)
		for _, server := range servers {
			if a := again.deposit(t, 1, server, "another"); a.status != http.StatusOK {
				t.Errorf("%s: depositing %q anew: %d %s", encoding, server, a.status, a.body)
			}
		}
		if n := strings.Count(again.call(t, 1, "GET", "/mcp-oauth-credentials", "").body, `"mcpServerId"`); n != len(servers) {
			t.Errorf("%s: %d credentials are listed, want %d", encoding, n, len(servers))
		}
	}
}

// A record that was bound while the database took text for other characters is told
// from one that was altered.
func TestVerifyTellsOtherBytes(t *testing.T) {
	t.Parallel()
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		s := serve(t, d.env).ready(t)
		for _, server := range []string{"café", "crème"} {
			s.deposit(t, 1, server, "token")
		}
		d.exec(t, "UPDATE "+d.table+" SET mcp_server_id = ? WHERE mcp_server_id = ?", "cafÃ©", "café")
		d.exec(t, "UPDATE "+d.table+" SET mcp_server_id = ? WHERE mcp_server_id = ?", "crÃªme", "crème") // another letter
		report := verify(t, d.env, exitFound)
		told := func(f credential.Failure) bool { return strings.Contains(f.Reason, "another encoding") }
		if len(report.Failed) != 2 || !told(report.Failed[0]) || told(report.Failed[1]) {
			t.Errorf("failed are %+v, want the first one told from the second", report.Failed)
		}
	})
}

// A rotation goes through although the role's default is a stricter isolation level.
func TestRotateUnderStricterIsolation(t *testing.T) {
	t.Parallel()
	d := postgresDatabase(t, pgtest.Shared(t))
	fill(t, d.env, 5)
	role, env := d.asRole(t)
	d.exec(t, "ALTER ROLE "+role+" SET default_transaction_isolation = 'serializable'")
	env = append(env, "FOREST_EXECUTOR_ENCRYPTION_KEY="+otherKey, "FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS="+testKey)
	report := rotated(t, do(t, env, "key", "rotate", "--reseal", "--wait", "--json"))
	if report.Verified.OK != 5 || len(report.Destroyed) != 1 {
		t.Errorf("the report is %+v", report)
	}
}
