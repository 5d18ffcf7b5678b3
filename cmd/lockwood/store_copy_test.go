package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/relocation"
	"github.com/lockwood-kms/lockwood/store/sqlite"
)

// eachCopy runs f with a source and an empty target of each kind.
func eachCopy(t *testing.T, f func(t *testing.T, from, to *testDatabase)) {
	kinds := map[string]func(t *testing.T) *testDatabase{
		"sqlite":   sqliteDatabase,
		"postgres": func(t *testing.T) *testDatabase { return postgresDatabase(t, pgtest.Shared(t)) },
	}
	for from, source := range kinds {
		for to, target := range kinds {
			t.Run(from+" to "+to, func(t *testing.T) {
				t.Parallel()
				f(t, source(t), target(t))
			})
		}
	}
}

// copyEnv is the configuration of the source with what a connection to the target needs.
func copyEnv(from *testDatabase) []string { return from.with("DATABASE_SSL=false") }

// records are the records of a database by user, server and column.
func (d *testDatabase) allRecords(t *testing.T) map[string]string {
	t.Helper()
	rows, err := d.db.QueryContext(t.Context(), "SELECT id, user_id, mcp_server_id, refresh_token_enc, client_secret_enc FROM "+d.table)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	found := make(map[string]string)
	for rows.Next() {
		var id, user int64
		var server string
		var token, secret []byte
		if err := rows.Scan(&id, &user, &server, &token, &secret); err != nil {
			t.Fatal(err)
		}
		found[fmt.Sprint(id, " ", user, " ", server)] = string(token) + "|" + string(secret)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

// sameRecords sees that the target holds what the source does, byte for byte.
func sameRecords(t *testing.T, from, to *testDatabase) {
	t.Helper()
	source, target := from.allRecords(t), to.allRecords(t)
	if len(source) != len(target) || len(source) == 0 {
		t.Fatalf("%d credentials, of which %d were copied", len(source), len(target))
	}
	for key, records := range source {
		if target[key] != records {
			t.Errorf("credential %s is another", key)
		}
	}
}

// A store moves while it is served: no deposit is lost, the instance that still runs on the
// source seals no more, and the target seals under a new data key.
func TestStoreCopy(t *testing.T) {
	t.Parallel()
	eachCopy(t, func(t *testing.T, from, to *testDatabase) {
		s := serve(t, from.env).ready(t)
		for n := range 5 {
			if a := s.deposit(t, int64(n+1), "server", "token"); a.status != http.StatusOK {
				t.Fatal(a)
			}
		}
		old, _ := envelope.ParseHeader(from.record(t, 1, "server"))
		if r := do(t, copyEnv(from), "store", "copy", "--to", to.url, "--dry-run"); r.code != exitOK || !strings.Contains(r.stdout, "5 credentials and 1 data key would be copied") {
			t.Fatalf("a dry run: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
		}
		s.seals(t) // nothing is refused yet
		var outcome copiedStore
		r := do(t, copyEnv(from), "store", "copy", "--to", to.url, "--json")
		if r.code != exitOK {
			t.Fatalf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
		}
		if r.json(t, &outcome); outcome.Credentials != 6 || outcome.Check == nil || !outcome.Check.OK() || len(outcome.Live) != 1 {
			t.Errorf("the outcome is %+v", outcome)
		}
		sameRecords(t, from, to)
		for what, a := range map[string]answer{
			"a deposit":    s.deposit(t, 1, "late", "token"),
			"a disconnect": s.call(t, 1, "DELETE", "/mcp-oauth-credentials/server", ""),
		} {
			if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
				t.Errorf("%s on the source: %d %s", what, a.status, a.body)
			}
		}
		if a := s.call(t, 1, "GET", "/mcp-oauth-credentials", ""); a.status != http.StatusOK {
			t.Errorf("a list of the source: %d", a.status)
		}
		pgtest.Eventually(t, "the instance on the source says so", func() bool { return strings.Contains(s.log.String(), "has moved to another database") })
		s.stop(t)
		if r := do(t, append(from.env, "HTTP_HOST=127.0.0.1", "HTTP_PORT=0", "ADMIN_ADDR=127.0.0.1:0"), "serve"); r.code != exitUsage || !strings.Contains(r.stderr, "has moved to") {
			t.Errorf("a new instance on the source: exit code %d, %s", r.code, r.stderr)
		}
		if r := do(t, from.env, "key", "rotate"); r.code == exitOK {
			t.Errorf("a rotation of the source: %s", r.stdout)
		}
		next := serve(t, to.env).ready(t)
		next.seals(t)
		if id, ok := envelope.ParseHeader(to.record(t, 1, "new")); !ok || id == old {
			t.Errorf("the target seals under %s, as the source did", id)
		}
		if report := verify(t, to.env, exitOK); report.OK != report.Records || report.Credentials != 6 {
			t.Errorf("the target verifies as %+v", report)
		}
		if r := do(t, copyEnv(from), "store", "copy", "--to", to.url); r.code != exitOK || !strings.Contains(r.stdout, "handed over to") {
			t.Errorf("once more: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
		}
	})
}

// phases returns what source and target say of the copy.
func phases(t *testing.T, databases ...*testDatabase) (found []string) {
	t.Helper()
	for _, d := range databases {
		phase := ""
		_ = d.db.QueryRowContext(t.Context(), "SELECT phase FROM "+d.schema+"lockwood_relocation").Scan(&phase) // there may be no table
		found = append(found, phase)
	}
	return found
}

// A copy that is killed anywhere goes on when it is run again, and never do both databases
// take writes.
func TestStoreCopyIsKilled(t *testing.T) {
	t.Parallel()
	eachCopy(t, func(t *testing.T, from, to *testDatabase) {
		fill(t, from.env, 30)
		took := 200 * time.Millisecond
		for kills := 0; ; kills++ {
			ctx, cancel := context.WithTimeout(t.Context(), rand.N(took))
			cmd := lockwood(ctx, t, copyEnv(from), "store", "copy", "--to", to.url)
			out, err := cmd.CombinedOutput()
			killed := ctx.Err() != nil
			cancel()
			if err == nil {
				break
			}
			if !killed {
				t.Fatalf("after %d kills: %v\n%s", kills, err, out)
			}
			switch p := phases(t, from, to); {
			case p[1] == "done" && p[0] != "moved", p[0] == "moved" && p[1] == "":
				t.Fatalf("after %d kills the phases are %q", kills, p)
			}
			took += took / 2 // until it is long enough, however slow the machine
		}
		sameRecords(t, from, to)
		if p := phases(t, from, to); p[0] != "moved" || p[1] != "done" {
			t.Errorf("the phases are %q", p)
		}
		if report := verify(t, to.env, exitOK); report.OK != 30 {
			t.Errorf("the target verifies as %+v", report)
		}
	})
}

// The source takes writes again when the copy is cancelled; after it was handed over, only
// when that is said in as many words.
func TestStoreCopyIsCancelled(t *testing.T) {
	t.Parallel()
	from := filledSQLite(t)
	to := "sqlite:" + filepath.Join(t.TempDir(), "to.db")
	if r := do(t, from.env, "store", "copy", "--cancel"); r.code != exitFound || !strings.Contains(r.stderr, "nothing to cancel") {
		t.Errorf("before: exit code %d, %s", r.code, r.stderr)
	}
	if r := do(t, from.env, "store", "copy", "--to", to); r.code != exitOK {
		t.Fatalf("%s%s", r.stdout, r.stderr)
	}
	if r := finish(t, lockwood(t.Context(), t, from.env, "store", "copy", "--cancel"), "yes\n"); r.code != exitUsage || !strings.Contains(r.stderr, targetIsUnused) {
		t.Errorf("without a word: exit code %d, %s", r.code, r.stderr)
	}
	if p := phases(t, from); p[0] != "moved" {
		t.Errorf("the phase is %q", p)
	}
	if r := finish(t, lockwood(t.Context(), t, from.env, "store", "copy", "--cancel"), targetIsUnused+"\n"); r.code != exitOK {
		t.Fatalf("%s%s", r.stdout, r.stderr)
	}
	serve(t, from.env).ready(t).seals(t)
	if r := do(t, from.env, "store", "copy", "--to", to); r.code != exitFound || !strings.Contains(r.stderr, "part of another copy") {
		t.Errorf("to the same target: exit code %d, %s", r.code, r.stderr)
	}
	serve(t, from.env).ready(t).seals(t)
	for what, args := range map[string][]string{
		"nowhere":         {"store", "copy"},
		"into memory":     {"store", "copy", "--to", "sqlite::memory:"},
		"to another kind": {"store", "copy", "--to", "mysql://x"},
		"onto itself":     {"store", "copy", "--to", from.url},
	} {
		if r := do(t, from.env, args...); r.code == exitOK {
			t.Errorf("%s: %s", what, r.stdout)
		}
	}
}

// What "key prune" notes in a store that never rotated is no rotation: the report says that
// there was none, and the store is copied.
func TestAPruneIsNoRotation(t *testing.T) {
	t.Parallel()
	d := filledSQLite(t)
	env := d.changedKey()
	if r := do(t, env, "key", "rewrap"); r.code != exitOK {
		t.Fatal(r.stderr)
	}
	if r := do(t, env, "key", "prune"); r.code != exitOK || !strings.Contains(r.stdout, "removed") {
		t.Fatalf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if r := do(t, env, "key", "report"); r.code != exitOK || !strings.Contains(r.stdout, "no report of a rotation") {
		t.Errorf("the report: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if r := do(t, env, "key", "report", "--json"); r.code != exitOK || strings.TrimSpace(r.stdout) != "null" {
		t.Errorf("the report as JSON: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if r := do(t, env, "store", "copy", "--to", "sqlite:"+filepath.Join(t.TempDir(), "to.db")); r.code != exitOK {
		t.Errorf("a copy: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// A copy that has begun goes on although a rotation of the source is not finished: the source
// would refuse to finish it.
func TestStoreCopyGoesOnBesideARotation(t *testing.T) {
	t.Parallel()
	from := filledSQLite(t)
	to := "sqlite:" + filepath.Join(t.TempDir(), "to.db")
	from.exec(t, `UPDATE lockwood_store SET report = '{"version":1,"state":"running"}'`)
	if r := do(t, from.env, "store", "copy", "--to", to); r.code != exitFound || !strings.Contains(r.stderr, "rotation is not finished") {
		t.Fatalf("before it began: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	from.exec(t, "UPDATE lockwood_store SET report = NULL")
	if r := do(t, from.env, "store", "copy", "--to", to); r.code != exitOK {
		t.Fatalf("%s%s", r.stdout, r.stderr)
	}
	from.exec(t, `UPDATE lockwood_store SET report = '{"version":1,"state":"running"}'`)
	if r := do(t, from.env, "store", "copy", "--to", to); r.code != exitOK {
		t.Errorf("again: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// An error after the store was handed over says so, and does not advise to cancel.
func TestStoreCopyFailsAfterTheHandover(t *testing.T) {
	t.Parallel()
	from, to := filledSQLite(t), sqliteDatabase(t)
	if r := do(t, from.env, "store", "copy", "--to", to.url); r.code != exitOK {
		t.Fatalf("%s%s", r.stdout, r.stderr)
	}
	to.exec(t, "ALTER TABLE "+to.table+" RENAME COLUMN scopes TO no_scopes") // so that it cannot be read
	r := do(t, from.env, "store", "copy", "--to", to.url)
	if r.code == exitOK || !strings.Contains(r.stderr, "was handed over to the target") || strings.Contains(r.stderr, "--cancel") {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	to.exec(t, "UPDATE lockwood_relocation SET phase = 'copying'")
	if r := do(t, from.env, "store", "copy", "--to", to.url, "--dry-run"); strings.Contains(r.stderr, "was handed over") {
		t.Errorf("before the target takes writes: %s", r.stderr)
	}
}

// An unfinished copy whose source is lost takes writes only when that is said in as many words.
func TestStoreCopyIsTaken(t *testing.T) {
	t.Parallel()
	from, to := filledSQLite(t), sqliteDatabase(t)
	if r := do(t, from.env, "store", "copy", "--to", to.url); r.code != exitOK {
		t.Fatalf("%s%s", r.stdout, r.stderr)
	}
	for _, d := range []*testDatabase{from, to} { // the one has moved, the other is open
		if r := do(t, d.env, "store", "copy", "--take", "--yes"); r.code != exitFound || !strings.Contains(r.stderr, "nothing to take") {
			t.Errorf("exit code %d, %s", r.code, r.stderr)
		}
	}
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: strings.TrimPrefix(to.url, "sqlite:")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	done, err := s.RelocationMark(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	copying := done
	copying.Phase = relocation.Copying
	if err := s.SetRelocationMark(t.Context(), done, copying); err != nil {
		t.Fatal(err)
	}
	if r := finish(t, lockwood(t.Context(), t, to.env, "store", "copy", "--take"), "yes\n"); r.code != exitUsage || !strings.Contains(r.stderr, "10 credentials") {
		t.Errorf("without a word: exit code %d, %s", r.code, r.stderr)
	}
	if p := phases(t, to); p[0] != "copying" {
		t.Errorf("the phase is %q", p)
	}
	if r := finish(t, lockwood(t.Context(), t, to.env, "store", "copy", "--take"), sourceIsLost+"\n"); r.code != exitOK {
		t.Fatalf("%s%s", r.stdout, r.stderr)
	}
	serve(t, to.env).ready(t).seals(t)
}
