package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/internal/buildtest"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// The situations of the runbooks about backups, moves and versions.

func sqliteBackupSituation(t *testing.T) situation {
	d := filledSQLite(t)
	s := serve(t, d.env).ready(t)
	file := filepath.Join(t.TempDir(), "backup.db")
	return situation{env: append(d.env, "BACKUP="+file), after: func(t *testing.T, out string) {
		wants("10 of 10 records open", "opens with envkey:")(t, out)
		s.seals(t)
	}}
}

func postgresBackupSituation(t *testing.T) situation {
	cluster := pgtest.Shared(t)
	d, restored := postgresDatabase(t, cluster), postgresDatabase(t, cluster)
	fill(t, d.env, 10)
	return situation{
		env:  append(d.env, "BACKUP="+filepath.Join(t.TempDir(), "lockwood.dump"), "RESTORED_URL="+restored.url),
		path: cluster.Programs(), after: wants("10 of 10 records open", "nothing was written"),
	}
}

// partSituation is a database into which the credential table alone was restored.
func partSituation(t *testing.T) situation {
	cluster := pgtest.Shared(t)
	d, part := postgresDatabase(t, cluster), postgresDatabase(t, cluster)
	fill(t, d.env, 10)
	file := filepath.Join(t.TempDir(), "lockwood.dump")
	line := do(t, d.env, "backup", file).stdout
	pgtest.Exec(t, part.url, "CREATE SCHEMA forest")
	script := line + "\npg_restore --no-owner --exit-on-error --schema=forest --table=ai_mcp_oauth_credentials --dbname='" + part.url + "' " + file
	if out, err := shell(t, []string{"PATH=" + cluster.Programs() + ":" + os.Getenv("PATH")}, script).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return situation{
		env: append(part.env, "BACKUP="+file, "RESTORED_URL="+part.url), path: cluster.Programs(),
		after: func(t *testing.T, out string) {
			wants("is not in it: a part of a backup was restored", "10 of 10 records open")(t, out)
			serve(t, part.env).ready(t).seals(t)
		},
	}
}

func moveSituation(t *testing.T) situation {
	from, to := filledSQLite(t), postgresDatabase(t, pgtest.Shared(t))
	return situation{env: append(copyEnv(from), "TARGET_URL="+to.url), after: func(t *testing.T, out string) {
		wants("would be copied", "handed over", "ok         10")(t, out)
		sameRecords(t, from, to)
		serve(t, to.env).ready(t).seals(t)
	}}
}

func upgradeSituation(t *testing.T) situation {
	old := olderLockwood(t)
	d := sqliteDatabase(t)
	s := old.serve(t, d.env).ready(t)
	s.seals(t)
	return situation{env: append(d.env, "BACKUP="+filepath.Join(t.TempDir(), "backup.db")), after: func(t *testing.T, out string) {
		wants("1 of 1 record opens", "ok         1")(t, out)
		s.stop(t)
		serve(t, d.env).ready(t).seals(t)
	}}
}

// earlier is a commit that had no access tokens yet, so that what is migrated since is
// something that it does not know.
const earlier = "eea0690"

// older is a program of an earlier version of lockwood.
type older struct{ program string }

// olderLockwood returns the program as it was at an earlier commit. It is built once on a
// machine.
func olderLockwood(t *testing.T) older {
	t.Helper()
	if err := exec.CommandContext(t.Context(), "git", "-C", "../..", "cat-file", "-e", earlier).Run(); err != nil {
		t.Skip("a shallow clone, or none, does not have the earlier commit", earlier)
	}
	dir, turn, err := buildtest.Kept("earlier-"+earlier, "../..")
	if err != nil {
		t.Fatal(err)
	}
	defer turn.Close()
	program := filepath.Join(dir, "lockwood")
	if _, err := os.Stat(program); err == nil {
		return older{program}
	}
	sources := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", `git -C ../.. archive "$1" | tar -x -C "$2"; go -C "$2" build -buildvcs=false -o lockwood.new ./cmd/lockwood; mv "$2/lockwood.new" "$3"`, "sh", earlier, sources, program)
	cmd.Env = append(os.Environ(), "GODEBUG=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the earlier version: %v\n%s", err, out)
	}
	return older{program}
}

func (v older) command(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), v.program, args...)
	cmd.Dir, cmd.Env = t.TempDir(), env
	return cmd
}

func (v older) serve(t *testing.T, env []string) *server {
	t.Helper()
	return launch(t, v.command(t, append([]string{"HTTP_HOST=127.0.0.1", "HTTP_PORT=0", "ADMIN_ADDR=127.0.0.1:0", "LOG_FORMAT=json", "DRAIN_GRACE=0s"}, env...), "serve"))
}

// Instances of an earlier version and of this one run on one database, in whatever order
// they start, and each opens what the other wrote; the earlier one can come back.
func TestUpgradeAndDowngrade(t *testing.T) {
	t.Parallel()
	old := olderLockwood(t)
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		env := append(d.env, "DRAIN_GRACE=0s")
		deposits := 0
		deposit := func(s *server) {
			t.Helper()
			if a := s.deposit(t, 1, fmt.Sprintf("server-%d", deposits), "token"); a.status != http.StatusOK {
				t.Fatalf("deposit %d: %d %s\n%s", deposits, a.status, a.body, s.log)
			}
			deposits++
		}
		opens := func() {
			t.Helper()
			if report := verify(t, d.env, exitOK); int(report.OK) != deposits {
				t.Fatalf("of %d deposits %+v", deposits, report)
			}
			if r := finish(t, old.command(t, d.env, "credentials", "verify", "--json"), ""); r.code != exitOK || !strings.Contains(r.stdout, fmt.Sprintf(`"ok": %d,`, deposits)) {
				t.Fatalf("the earlier version verifies as %d\n%s%s", r.code, r.stdout, r.stderr)
			}
		}
		before := old.serve(t, d.env).ready(t)
		deposit(before)
		after := serve(t, env).ready(t) // which migrates beside it
		deposit(after)
		deposit(before)
		opens()
		if r := finish(t, old.command(t, d.env, "doctor"), ""); !strings.Contains(r.stdout, "schema version") {
			t.Errorf("the earlier doctor says nothing of the schema:\n%s", r.stdout)
		}
		before.stop(t)
		deposit(after)
		after.stop(t)
		back := old.serve(t, d.env).ready(t)
		deposit(back)
		opens()
		if a := back.call(t, 1, "DELETE", "/mcp-oauth-credentials/server-1", ""); a.status != http.StatusNoContent {
			t.Errorf("a disconnect after going back: %d", a.status)
		}
		deposits--
		again := serve(t, env).ready(t)
		if a := again.deposit(t, 2, "again", "token"); a.status != http.StatusOK {
			t.Errorf("a deposit after coming again: %d", a.status)
		}
		deposits++
		opens()
	})
}

// A store that has moved takes no writes from an earlier version either.
func TestAnEarlierVersionOnAMovedStore(t *testing.T) {
	t.Parallel()
	old := olderLockwood(t)
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		s := old.serve(t, d.env).ready(t)
		s.seals(t)
		if r := do(t, copyEnv(d), "store", "copy", "--to", "sqlite:"+filepath.Join(t.TempDir(), "to.db")); r.code != exitOK {
			t.Fatalf("%s%s", r.stdout, r.stderr)
		}
		for what, a := range map[string]answer{
			"a deposit":    s.deposit(t, 1, "late", "token"),
			"a disconnect": s.call(t, 1, "DELETE", "/mcp-oauth-credentials/new", ""),
		} {
			if a.status < 500 {
				t.Errorf("%s: %d %s", what, a.status, a.body)
			}
		}
		if n := d.count(t, d.table); n != 1 {
			t.Errorf("%d credentials, want the one from before", n)
		}
	})
}
