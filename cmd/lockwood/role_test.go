package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// roleStatements returns the blocks of SQL of the chapter "The role in PostgreSQL",
// for a role of another name, since roles are those of the whole server.
func roleStatements(t *testing.T, role string) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, chapter, found := strings.Cut(string(text), "\n## The role in PostgreSQL\n")
	chapter, _, _ = strings.Cut(chapter, "\n## ")
	var blocks []string
	for _, m := range regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllStringSubmatch(chapter, -1) {
		blocks = append(blocks, regexp.MustCompile(`\blockwood\b`).ReplaceAllString(m[1], role))
	}
	if !found || len(blocks) != 3 {
		t.Fatalf("the chapter has %d blocks of SQL, want 3", len(blocks))
	}
	return blocks
}

// The role that docs/operations.md makes for a new database can do everything.
func TestRoleOfANewDatabase(t *testing.T) {
	t.Parallel()
	d := postgresDatabase(t, pgtest.Shared(t))
	role := nameOf(t, d.url) + "_documented"
	d.exec(t, roleStatements(t, role)[0])
	env := d.with("DATABASE_URL=" + d.pg.URL(role, nameOf(t, d.url)))
	fill(t, env, 2)
	if r := do(t, env, "key", "rotate", "--reseal", "--wait"); r.code != exitOK {
		t.Errorf("rotate: %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// The role that docs/operations.md makes beside the executor's serves and re-seals, and
// closes the store once it owns the table.
func TestRoleBesideTheExecutor(t *testing.T) {
	t.Parallel()
	d, e := upstreamDatabase(t)
	role := nameOf(t, d.url) + "_documented"
	blocks := roleStatements(t, role)
	d.exec(t, blocks[1])
	env := d.with("DATABASE_URL=" + d.pg.URL(role, nameOf(t, d.url)))
	s := serve(t, env).ready(t)
	s.secret = e.AuthSecret
	if a := s.deposit(t, 7, "s", "FAKE"); a.status != 200 {
		t.Errorf("a deposit: %d %s", a.status, a.body)
	}
	if a := s.deposit(t, 7, "s", "FAKE-2"); a.status != 200 {
		t.Errorf("a deposit over the first: %d %s", a.status, a.body)
	}
	if r := do(t, env, "key", "rotate", "--reseal", "--wait"); r.code != exitOK {
		t.Errorf("rotate: %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if r := do(t, env, "key", "legacy", "close", "--yes"); r.code == exitOK {
		t.Error("a role that does not own the table closed the store")
	}
	d.exec(t, blocks[2])
	if r := do(t, env, "key", "legacy", "close", "--yes"); r.code != exitOK {
		t.Errorf("close: %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}
