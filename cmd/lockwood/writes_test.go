package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// readyz is what the second listener says.
func (s *server) readyz(t *testing.T) answer {
	t.Helper()
	resp, err := http.Get(s.admin + "/readyz")
	if err != nil {
		return answer{}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}
	}
	return answer{resp.StatusCode, string(text), resp.Header}
}

// An instance whose database answers and takes no writes says so at its next beat, is
// not ready after half a minute of it, and is again when writes go through.
func TestNotReadyWithoutWrites(t *testing.T) {
	t.Parallel()
	d := postgresDatabase(t, pgtest.Shared(t))
	fill(t, d.env, 1)
	role, env := d.asRole(t)
	s := serve(t, env).ready(t)
	d.exec(t, "ALTER ROLE "+role+" SET default_transaction_read_only = on")
	d.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '"+role+"'")
	pgtest.Eventually(t, "readyz says it", func() bool {
		a := s.readyz(t)
		return a.status == http.StatusOK && strings.Contains(a.body, "25006")
	})
	if a := s.deposit(t, 1, "server", "token"); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("a deposit: %d %s", a.status, a.body)
	}
	if list := found(t, env, "writes"); len(list) != 1 || list[0].Verdict != verdictFail {
		t.Errorf("doctor says %+v", list)
	}
	pgtest.Eventually(t, "the instance is not ready", func() bool { return s.readyz(t).status == http.StatusServiceUnavailable })
	if a := s.call(t, 1, "GET", "/mcp-oauth-credentials", ""); a.status != http.StatusOK {
		t.Errorf("listing: %d %s", a.status, a.body)
	}
	d.exec(t, "ALTER ROLE "+role+" RESET default_transaction_read_only")
	pgtest.Eventually(t, "the instance is ready again", func() bool {
		a := s.readyz(t)
		return a.status == http.StatusOK && !strings.Contains(a.body, "writes")
	})
}

// A role without the right to insert is found before a user does.
func TestARoleWithoutInsert(t *testing.T) {
	t.Parallel()
	d := postgresDatabase(t, pgtest.Shared(t))
	fill(t, d.env, 1)
	role, env := d.asRole(t)
	d.exec(t, "REVOKE INSERT ON forest.ai_mcp_oauth_credentials FROM "+role)
	list := found(t, env, "rights")
	if len(list) != 1 || list[0].Verdict != verdictFail {
		t.Fatalf("doctor says %+v", list)
	}
	d.exec(t, afterRun(list[0].Remedy))
	if list := found(t, env, "rights"); len(list) != 0 {
		t.Errorf("after the remedy: %+v", list)
	}
}

// A deposit that finds no room on the disk is answered 503, and the reason is logged. With
// room the instance goes on by itself.
func TestADatabaseWithoutRoom(t *testing.T) {
	t.Parallel()
	c := pgtest.Start(t, nil)
	d := postgresDatabase(t, c)
	s := serve(t, d.env).ready(t)
	var file string
	if err := d.db.QueryRowContext(t.Context(), "SELECT pg_relation_filepath('"+d.table+"')").Scan(&file); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(c.Dir(), "data", file)
	move := func(from, to string) {
		t.Helper()
		c.Stop(t)
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	move(file, file+".kept")
	if err := os.Symlink("/dev/full", file); err != nil { // which takes no byte, as a full disk
		t.Fatal(err)
	}
	c.Start(t)
	var got answer
	pgtest.Eventually(t, "a deposit finds no room", func() bool {
		got = s.deposit(t, 1, "server", "token")
		return strings.Contains(s.log.String(), "53100")
	})
	if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
		t.Errorf("a deposit: %d %s", got.status, got.body)
	}
	if a := s.call(t, 1, "GET", "/mcp-oauth-credentials", ""); a.status != http.StatusOK {
		t.Errorf("listing: %d %s", a.status, a.body)
	}
	move(file+".kept", file)
	c.Start(t)
	pgtest.Eventually(t, "deposits go on", func() bool { return s.deposit(t, 1, "server", "token").status == http.StatusOK })
}
