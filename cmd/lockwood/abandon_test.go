package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// lostKey is the configuration with a new env key and without the one that the store was
// written with.
func (d *testDatabase) lostKey() []string {
	return d.with("FOREST_EXECUTOR_ENCRYPTION_KEY=" + otherKey)
}

// abandon runs the command, which is to end well.
func abandon(t *testing.T, env []string, args ...string) abandoned {
	t.Helper()
	r := do(t, env, append([]string{"key", "abandon", "--json"}, args...)...)
	if r.code != exitOK {
		t.Fatalf("key abandon %v: exit code %d\n%s%s", args, r.code, r.stdout, r.stderr)
	}
	var a abandoned
	r.json(t, &a)
	return a
}

// A store whose key is lost takes deposits again once what does not open is given up, and
// gives it back when the key turns up.
func TestAbandonAndRestore(t *testing.T) {
	t.Parallel()
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		s := serve(t, append(d.env, "DRAIN_GRACE=0s")).ready(t)
		for user := int64(1); user <= 3; user++ {
			for n := range 2 {
				if a := s.deposit(t, user, fmt.Sprintf("server-%d", n), fmt.Sprintf("token-%d-%d", user, n)); a.status != http.StatusOK {
					t.Fatalf("deposit: %d %s", a.status, a.body)
				}
			}
		}
		s.stop(t)
		updated := d.texts(t, d.updatedAt())
		export := filepath.Join(t.TempDir(), "lost.json")

		running := serve(t, append(d.lostKey(), "DRAIN_GRACE=0s")).ready(t)
		if plan := abandon(t, d.lostKey(), "--dry-run"); plan.Credentials != 6 || plan.Users != 3 || plan.Kept != 0 || len(plan.DataKeys) != 1 {
			t.Errorf("the plan is %+v", plan)
		}
		if _, err := os.Stat(export); err == nil || d.count(t, d.table) != 6 {
			t.Error("a dry run did something")
		}
		done := abandon(t, d.lostKey(), "--export", export, "--yes")
		if done.Credentials != 6 || done.Users != 3 || done.Primary == "" || done.Primary == done.DataKeys[0] || d.count(t, d.table) != 0 {
			t.Errorf("it did %+v, and %d credentials are left", done, d.count(t, d.table))
		}
		exported(t, export, 6)
		running.seals(t) // as user 1, server "new"
		if a := running.deposit(t, 1, "server-0", "since"); a.status != http.StatusOK {
			t.Errorf("a deposit afterwards: %d %s", a.status, a.body)
		}
		running.stop(t)

		restore := func(env []string) (restoredExport, result) {
			var r restoredExport
			out := do(t, env, "key", "abandon", "--restore", export, "--json")
			out.json(t, &r)
			return r, out
		}
		if r, out := restore(d.lostKey()); out.code != exitFound || len(r.Lost) != 1 || r.Credentials != 5 || r.Skipped != 1 {
			t.Errorf("without the key: exit code %d, %+v", out.code, r)
		}
		if r, out := restore(d.changedKey()); out.code != exitOK || r.Credentials != 0 || r.Skipped != 6 || len(r.Lost) != 0 {
			t.Errorf("once more, with it: exit code %d, %+v\n%s", out.code, r, out.stderr)
		}
		if report := rotated(t, do(t, d.changedKey(), "key", "rotate", "--reseal", "--wait", "--json")); !report.Independent {
			t.Errorf("the rotation afterwards: %+v", report)
		}
		d.holds(t, map[owner]string{
			{1, "new"}: "token", {1, "server-0"}: "since", {1, "server-1"}: "token-1-1", {2, "server-0"}: "token-2-0", {2, "server-1"}: "token-2-1",
			{3, "server-0"}: "token-3-0", {3, "server-1"}: "token-3-1",
		})
		if again := d.texts(t, d.updatedAt()); strings.Join(again, " ") != strings.Join(updated, " ") {
			t.Errorf("the times were %s and are %s", updated, again)
		}
	})
}

// updatedAt is a query for when the credentials of user 3, whom nobody touches, changed.
func (d *testDatabase) updatedAt() string {
	return "SELECT CAST(updated_at AS TEXT) FROM " + d.table + " WHERE user_id = 3 ORDER BY mcp_server_id"
}

// holds sees that the store opens, under the new key alone, to these tokens and no more.
func (d *testDatabase) holds(t *testing.T, want map[owner]string) {
	t.Helper()
	v := openVault(t, d.lostKey())
	for o, token := range want {
		got, err := v.credentials.Open(t.Context(), o.user, o.server)
		if err != nil || string(got.RefreshToken) != token {
			t.Errorf("%v: %v", o, err)
		}
	}
	if n := d.count(t, d.table); n != len(want) {
		t.Errorf("%d credentials, want %d", n, len(want))
	}
}

// exported sees that the file is closed to others and lists the credentials.
func exported(t *testing.T, path string, want int) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the export: %v, %v", info, err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	credentials := 0
	for line := range strings.Lines(string(text)) {
		var l struct {
			Credential *struct {
				UserID int64  `json:"user_id"`
				Server string `json:"mcp_server_id"`
			}
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if l.Credential != nil && l.Credential.UserID > 0 && l.Credential.Server != "" {
			credentials++
		}
	}
	if credentials != want {
		t.Errorf("the export lists %d credentials, want %d", credentials, want)
	}
}

// Nothing is given up that anything could open, or that was not exported.
func TestAbandonRefuses(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	fill(t, d.env, 2)
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	there := file("there")
	if err := os.WriteFile(there, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused := func(what string, code int, want string, env []string, args ...string) {
		t.Helper()
		r := do(t, env, append([]string{"key", "abandon"}, args...)...)
		if r.code != code || !strings.Contains(r.stderr, want) {
			t.Errorf("%s: exit code %d, want %d and %q\n%s%s", what, r.code, code, want, r.stdout, r.stderr)
		}
		if n := d.count(t, d.table); n != 2 {
			t.Fatalf("%s: %d credentials are left", what, n)
		}
	}
	refused("the key", exitFound, "is not lost", d.env, "--export", file("a"), "--yes")
	refused("a previous key", exitFound, "is not lost", d.changedKey(), "--export", file("a"), "--yes")
	refused("no export", exitUsage, "--export", d.lostKey(), "--yes")
	refused("a file that is there", exitUsage, "name another file", d.lostKey(), "--export", there, "--yes")
	refused("no directory", exitFound, "no such file", d.lostKey(), "--export", file("none/a"), "--yes")
	refused("no word", exitUsage, "not confirmed", d.lostKey(), "--export", file("b"))
	refused("no key at all", exitFound, "cannot be used", d.with("FOREST_EXECUTOR_ENCRYPTION_KEY"), "--export", file("c"), "--yes")
	refused("no such export", exitUsage, "no such file", d.changedKey(), "--restore", file("none"))
	refused("no export at all", exitUsage, "no whole export", d.changedKey(), "--restore", there)
	if text, err := os.ReadFile(there); err != nil || string(text) != "mine" {
		t.Errorf("the file that was there is now %q, %v", text, err)
	}

	s := serve(t, append(d.env, "DRAIN_GRACE=0s")).ready(t)
	pgtest.Eventually(t, "the instance says that it is ready", func() bool {
		list := d.status(t, d.env).Instances
		return len(list) == 1 && list[0].State == "ready"
	})
	refused("an instance that has the key", exitFound, "is live and seals", d.lostKey(), "--export", file("d"), "--yes")
	s.stop(t)

	abandoned := abandon(t, d.lostKey(), "--export", file("e"), "--yes")
	other := sqliteDatabase(t)
	fill(t, other.env, 1)
	if r := do(t, other.env, "key", "abandon", "--restore", file("e")); r.code != exitUsage || !strings.Contains(r.stderr, "another store") {
		t.Errorf("into another store: exit code %d\n%s", r.code, r.stderr)
	}
	text, err := os.ReadFile(file("e"))
	if err != nil {
		t.Fatal(err)
	}
	cut := file("cut")
	if err := os.WriteFile(cut, text[:len(text)-30], 0o600); err != nil {
		t.Fatal(err)
	}
	if r := do(t, d.changedKey(), "key", "abandon", "--restore", cut); r.code != exitUsage || !strings.Contains(r.stderr, "no whole export") || d.count(t, d.table) != 0 {
		t.Errorf("an export that was cut: exit code %d\n%s", r.code, r.stderr)
	}
	if abandoned.Credentials != 2 {
		t.Errorf("%+v", abandoned)
	}
}

// What opens stays: legacy records under a previous env key, beside format 1 under a key
// that is lost.
func TestAbandonKeepsWhatOpens(t *testing.T) {
	t.Parallel()
	d, e := upstreamDatabase(t)
	kms, _, uri, aws := awsKey(t)
	env := append(append(d.env, pluginsEnv(t)...), append(aws, "FOREST_EXECUTOR_KEY_PROVIDER="+uri)...)
	s := serve(t, append(env, "DRAIN_GRACE=0s")).ready(t)
	s.secret = e.AuthSecret
	if a := s.deposit(t, 9000, "lost", "token"); a.status != http.StatusOK {
		t.Fatalf("deposit: %d %s", a.status, a.body)
	}
	s.stop(t)
	kms.Close()
	lost := d.with("FOREST_EXECUTOR_ENCRYPTION_KEY="+otherKey, "FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS="+e.Key)
	done := abandon(t, lost, "--export", filepath.Join(t.TempDir(), "lost.json"), "--yes")
	if done.Credentials != 1 || done.Users != 1 || done.Kept != int64(len(e.Rows)) {
		t.Errorf("%+v", done)
	}
	if report := verify(t, lost, exitOK); report.OK == 0 || report.OK != report.Records {
		t.Errorf("afterwards: %+v", report)
	}
}
