package main

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/store"
)

// found are the findings of doctor of a check.
func found(t *testing.T, env []string, check string) []finding {
	t.Helper()
	var list []finding
	do(t, env, "doctor", "--json").json(t, &list)
	return slices.DeleteFunc(list, func(f finding) bool { return f.Check != check })
}

// afterRun is the statement in a remedy.
func afterRun(remedy string) string {
	_, statement, _ := strings.Cut(remedy, "run: ")
	statement, _, _ = strings.Cut(statement, ";")
	return statement
}

// A store that was restored without its indexes is told by doctor and at the start,
// with the statement that mends it.
func TestTheMissingIndexIsNamed(t *testing.T) {
	t.Parallel()
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		fill(t, d.env, 1)
		d.exec(t, "DROP INDEX "+d.schema+"idx_user_id_mcp_server_id")
		list := found(t, d.env, "index")
		if len(list) != 1 || list[0].Verdict != verdictFail {
			t.Fatalf("doctor says %+v", list)
		}
		s := serve(t, d.env)
		pgtest.Eventually(t, "the start says it", func() bool { return strings.Contains(s.log.String(), "CREATE UNIQUE INDEX") })
		d.exec(t, afterRun(list[0].Remedy))
		if list := found(t, d.env, "index"); len(list) != 0 {
			t.Errorf("after the remedy doctor says %+v", list)
		}
		if a := s.ready(t).deposit(t, 1, "server-0", "token"); a.status != http.StatusOK {
			t.Errorf("after the remedy a deposit answers %d", a.status)
		}
	})
}

// Another role's function under the name of ours stops the start and what destroys.
func TestForeignFunctionsAreRefused(t *testing.T) {
	t.Parallel()
	d := postgresDatabase(t, pgtest.Shared(t))
	fill(t, d.env, 1)
	role, _ := d.asRole(t)
	d.exec(t, "SET ROLE "+role+"; CREATE FUNCTION forest.lockwood_upsert_credential(text) RETURNS boolean LANGUAGE sql AS 'SELECT true'; RESET ROLE")
	for _, args := range [][]string{{"serve"}, {"key", "rotate"}} {
		r := do(t, d.with("HTTP_PORT=0", "ADMIN_ADDR=127.0.0.1:0"), args...)
		if r.code == exitOK || !strings.Contains(r.stderr, "forest.lockwood_upsert_credential(text)") || !strings.Contains(r.stderr, role) {
			t.Errorf("%v: %d\n%s", args, r.code, r.stderr)
		}
	}
	list := found(t, d.env, "functions")
	if len(list) != 1 || list[0].Verdict != verdictFail {
		t.Fatalf("doctor says %+v", list)
	}
	d.exec(t, afterRun(list[0].Remedy))
	serve(t, d.env).ready(t)
}

// What the database hides, and that it was migrated by a newer version, is told at the
// start, which serves on, and by doctor.
func TestTheStartSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	d := postgresDatabase(t, pgtest.Shared(t))
	fill(t, d.env, 1)
	role, env := d.asRole(t)
	d.exec(t, enableRowSecurity)
	d.exec(t, "INSERT INTO forest.lockwood_migrations VALUES (99, now())")
	s := serve(t, env).ready(t)
	for _, want := range []string{"may hide rows", "BYPASSRLS", role, "newer version", "version 99"} {
		if !strings.Contains(s.log.String(), want) {
			t.Errorf("the start does not say %q:\n%s", want, s.log)
		}
	}
	if list := found(t, env, "row-level security"); len(list) != 1 || list[0].Verdict != verdictFail {
		t.Errorf("doctor says %+v", list)
	}
	if list := found(t, env, "schema version"); len(list) != 1 || list[0].Verdict != verdictWarn {
		t.Errorf("doctor says %+v", list)
	}
}

// Every condition that a store can find has words, a remedy among them.
func TestEveryConditionHasWords(t *testing.T) {
	t.Parallel()
	for _, c := range store.Conditions() {
		p := preconditionOf(store.Finding{Condition: c, Object: "object", Detail: "detail", Role: "role"})
		if p.found == "" || p.endangers == "" || p.remedy == "" || strings.ContainsAny(p.String(), "{}") {
			t.Errorf("%s: %+v", c, p)
		}
	}
}

// Every cause has a remedy.
func TestEveryCauseHasARemedy(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, c := range store.Causes() {
		remedy := databaseRemedy(&store.CauseError{Cause: c, Err: errors.New("x")}, "")
		if remedy == "" || seen[remedy] {
			t.Errorf("%s: the remedy is %q, want one of its own", c, remedy)
		}
		seen[remedy] = true
	}
}

// What the URL weakens is told by the start and by doctor; another cause than a server
// that is down has a remedy of its own.
func TestTLSAndCausesAreTold(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Start(t, &pgtest.Options{TCP: true})
	at := func(database, more string) []string {
		return keysOf(fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s%s", cluster.Port(), database, more))
	}
	weak := at("postgres", "?sslmode=disable")
	s := serve(t, weak).ready(t)
	if !strings.Contains(s.log.String(), "DATABASE_SSL asks for") {
		t.Errorf("the start does not tell:\n%s", s.log)
	}
	if list := found(t, weak, "TLS"); len(list) != 1 || list[0].Verdict != verdictFail {
		t.Errorf("doctor says %+v", list)
	}
	for want, env := range map[string][]string{
		"turn TLS on":       at("postgres", ""),
		"make the database": append(at("missing", ""), "DATABASE_SSL=false"),
	} {
		if list := found(t, env, "database"); len(list) != 1 || !strings.Contains(list[0].Remedy, want) {
			t.Errorf("doctor says %+v, want %q", list, want)
		}
		if r := do(t, env, "key", "status"); r.code != exitUnavailable || !strings.Contains(r.stderr, want) {
			t.Errorf("key status: %d %s, want %q", r.code, r.stderr, want)
		}
	}
}

// What a name of the database holds cannot act on a terminal.
func TestNamesAreQuoted(t *testing.T) {
	t.Parallel()
	err := &store.UnseenError{Findings: []store.Finding{{Condition: store.NotATable, Object: "x\x1b[2K\r", Detail: "view"}}}
	text := strings.Join(remedies(errors.Join(err)), "\n")
	if strings.ContainsAny(text, "\x1b\r") || !strings.Contains(text, `\x1b`) {
		t.Errorf("printed %q", text)
	}
}
