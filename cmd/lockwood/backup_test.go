package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/lockwood-kms/lockwood/backup"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// restored is a SQLite database that a backup was put in the place of.
func restored(t *testing.T, backup string) *testDatabase {
	t.Helper()
	d := sqliteDatabase(t)
	text, err := os.ReadFile(backup)
	if err == nil {
		err = os.WriteFile(strings.TrimPrefix(d.url, "sqlite:"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A backup of a database that is served is whole, closed to others, and overwrites nothing;
// whoever serves on it seals under a new data key.
func TestBackupWhileServing(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	s := serve(t, d.env).ready(t)
	for n := range 20 {
		if a := s.deposit(t, 1, fmt.Sprintf("before-%d", n), "token"); a.status != http.StatusOK {
			t.Fatal(a)
		}
	}
	d.exec(t, "INSERT INTO lockwood_access_tokens (user_id, mcp_server_id, credential_id, generation, access_token_enc, expires_at, verdict, refreshed_at) "+
		"SELECT user_id, mcp_server_id, id, 1, refresh_token_enc, 1, 'invalid_grant', 1000 FROM ai_mcp_oauth_credentials WHERE mcp_server_id = 'before-0'")
	ended := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-ended:
				return
			default:
				s.deposit(t, 2, fmt.Sprintf("during-%d", n), "token")
			}
		}
	})
	file := filepath.Join(t.TempDir(), "backup.db")
	r := do(t, d.env, "backup", file, "--json")
	close(ended)
	writer.Wait()
	if r.code != exitOK {
		t.Fatalf("backup: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	var report backup.Report
	r.json(t, &report)
	if report.Credentials < 20 || report.Opened == nil || report.Opened.OK != report.Records || !report.OK() || report.Grants.Known != 1 || report.Grants.Reauth != 1 || report.Grants.LastRefreshedAt == nil {
		t.Errorf("the report is %+v", report)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	if names, err := os.ReadDir(filepath.Dir(file)); err != nil || len(names) != 1 {
		t.Errorf("beside the backup lie %v, %v", names, err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if r := do(t, d.env, "backup", file); r.code != exitUsage || !strings.Contains(r.stderr, "nothing is overwritten") {
		t.Errorf("over an earlier one: exit code %d, %s", r.code, r.stderr)
	}
	if again, err := os.ReadFile(file); err != nil || string(again) != string(text) {
		t.Errorf("the earlier backup changed: %v", err)
	}
	if !strings.Contains(string(text), string(d.record(t, 1, "before-0"))) {
		t.Error("a credential is not in the backup")
	}
	restoredRolls(t, d, file)
}

// restoredRolls sees that a restored backup holds no access token and seals under none of
// its old data keys.
func restoredRolls(t *testing.T, d *testDatabase, file string) {
	t.Helper()
	old, _ := envelope.ParseHeader(d.record(t, 1, "before-0"))
	back := restored(t, file)
	path := strings.TrimPrefix(back.url, "sqlite:")
	if n := back.count(t, "lockwood_access_tokens WHERE access_token_enc IS NOT NULL"); n != 0 {
		t.Error("the backup holds an access token")
	}
	if n := back.count(t, "lockwood_instances"); n != 0 {
		t.Errorf("the backup holds %d instances", n)
	}
	s := serve(t, back.env).ready(t)
	s.seals(t)
	if id, ok := envelope.ParseHeader(back.record(t, 1, "new")); !ok || id == old {
		t.Errorf("the restored store seals under %s, which sealed before", id)
	}
	if err := back.db.Close(); err != nil { // which is a second user of the file
		t.Fatal(err)
	}
	s.stop(t)
	// A clean stop leaves everything in the one file.
	names, err := filepath.Glob(path + "*")
	if err != nil || len(names) != 1 {
		t.Errorf("after a stop there are %v, %v", names, err)
	}
	if report := verify(t, back.env, exitOK); report.OK < 21 {
		t.Errorf("it verifies as %+v", report)
	}
}

// What a backup lacks, or what it needs, is said, each by its key.
func TestBackupCheck(t *testing.T) {
	t.Parallel()
	d := filledSQLite(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "backup.db")
	if r := do(t, without(d.env, "FOREST_EXECUTOR_ENCRYPTION_KEY"), "backup", file); r.code != exitOK || !strings.Contains(r.stdout, "Not one record was opened") || !strings.Contains(r.stdout, "10 credentials with 10 records") {
		t.Fatalf("without the key: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	check := func(code int, env []string, parts ...string) {
		t.Helper()
		r := do(t, env, "backup", "check", file)
		if r.code != code {
			t.Errorf("exit code %d, want %d\n%s%s", r.code, code, r.stdout, r.stderr)
		}
		for _, part := range parts {
			if !strings.Contains(r.stdout, part) {
				t.Errorf("it does not say %q:\n%s", part, r.stdout)
			}
		}
	}
	kek := string(d.status(t, d.env).KEKID)
	check(exitOK, d.env, "opens with "+kek, "10 of 10 records open")
	check(exitOK, d.changedKey(), "opens with "+kek)
	check(exitFound, d.lostKey(), "needs "+kek+", of which none is at hand", "0 of 10 records open")
	check(exitFound, without(d.env, "FOREST_EXECUTOR_ENCRYPTION_KEY"), "needs "+kek, "Not one record was opened")

	part := restored(t, file)
	part.exec(t, "DROP TRIGGER lockwood_data_keys_guard_delete")
	part.exec(t, "DELETE FROM lockwood_data_key_wraps")
	part.exec(t, "DELETE FROM lockwood_data_keys")
	if r := do(t, part.env, "backup", "check"); r.code != exitFound || !strings.Contains(r.stdout, "is not in it: a part of a backup was restored") {
		t.Errorf("of a part: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if r := do(t, d.env, "backup", "check", filepath.Join(dir, "none.db")); r.code != exitUsage {
		t.Errorf("of no file: exit code %d, %s", r.code, r.stderr)
	}
}

// A backup is kept where the configuration of the keys is not in order, and said not to be
// examined.
func TestBackupIsKeptWithoutItsKeys(t *testing.T) {
	t.Parallel()
	d := filledSQLite(t)
	file := filepath.Join(t.TempDir(), "backup.db")
	for _, env := range [][]string{d.with("FOREST_EXECUTOR_ENCRYPTION_KEY=weak"), d.with("FOREST_EXECUTOR_KEY_PROVIDER=nosuchkms://key")} {
		r := do(t, env, "backup", file, "--json")
		if r.code != exitFound || !strings.Contains(r.stdout, `"not_examined"`) || !strings.Contains(r.stderr, "was not examined") {
			t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
		}
		if r := do(t, d.env, "backup", "check", file); r.code != exitOK || !strings.Contains(r.stdout, "10 of 10 records open") {
			t.Errorf("the backup: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
		}
		if err := os.Remove(file); err != nil {
			t.Error(err)
		}
	}
}

// A key that is at hand and does not open is told from one that is not at hand.
func TestBackupSaysWhyAKeyDoesNotOpen(t *testing.T) {
	t.Parallel()
	k := backup.DataKey{KeyID: "id", KEKIDs: []core.KEKID{"test:key#1"}, Problem: "the key provider is unavailable\nsecond", Refused: true}
	var out strings.Builder
	printBackupKey(&out, &k)
	if text := out.String(); !strings.Contains(text, "did not open it: the key provider is unavailable; second") || strings.Contains(text, "none is at hand") {
		t.Errorf("it says %q", text)
	}
}

// For PostgreSQL the command is printed that makes a backup; what it makes, restored, is
// whole, and the line holds no password.
func TestBackupOfPostgres(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Shared(t)
	d := postgresDatabase(t, cluster)
	fill(t, d.env, 10)
	file := filepath.Join(t.TempDir(), "it's a backup.dump")
	secret := strings.Replace(d.url, "postgres@", "postgres:pass%20word@", 1)
	r := do(t, d.with("DATABASE_URL="+secret), "backup", file)
	if r.code != exitUsage || strings.Contains(r.stdout+r.stderr, "pass") {
		t.Fatalf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a file: %v", err)
	}
	target := postgresDatabase(t, cluster)
	script := strings.TrimSpace(r.stdout) + "\npg_restore --no-owner --exit-on-error --dbname='" + target.url + "' '" + strings.ReplaceAll(file, "'", `'\''`) + "'\n"
	if out, err := shell(t, []string{"PATH=" + cluster.Programs() + ":" + os.Getenv("PATH")}, script).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, script, out)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the dump: %v, %v", info, err)
	}
	if r := do(t, target.env, "backup", "check"); r.code != exitOK || !strings.Contains(r.stdout, "10 of 10 records open") {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	serve(t, target.env).ready(t).seals(t)
}
