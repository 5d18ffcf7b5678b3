package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	agelib "filippo.io/age"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// runbooks are the chapters of docs/operations.md that have commands, as one script
// each.
func runbooks(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	books := make(map[string]string)
	for _, chapter := range strings.Split(string(text), "\n## ")[1:] {
		title, body, _ := strings.Cut(chapter, "\n")
		var script strings.Builder
		for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(body, -1) {
			script.WriteString(m[1])
		}
		if script.Len() > 0 {
			books[title] = script.String()
		}
	}
	return books
}

// situation is where a runbook begins, and what is looked at when it has ended.
type situation struct {
	env    []string          // the configuration of the instances
	values map[string]string // what stands for what in the text
	path   string            // a directory of further programs
	// after judges; out is what the commands printed.
	after func(t *testing.T, out string)
}

const independent = "This store is independent of the old key"

// filledSQLite is a store under the test key with ten credentials.
func filledSQLite(t *testing.T) *testDatabase {
	d := sqliteDatabase(t)
	fill(t, d.env, 10)
	return d
}

func wants(parts ...string) func(*testing.T, string) {
	return func(t *testing.T, out string) {
		t.Helper()
		for _, part := range parts {
			if !strings.Contains(out, part) {
				t.Errorf("the output lacks %q", part)
			}
		}
	}
}

// Every runbook runs as it is written, and ends as it says.
func TestRunbooks(t *testing.T) {
	t.Parallel()
	books := runbooks(t)
	situations := map[string]func(t *testing.T) situation{
		"The order of a rolling deployment": rollingSituation,
		"Change the env key": func(t *testing.T) situation {
			return situation{env: filledSQLite(t).env, after: wants("Nothing was written", independent, "ok         10")}
		},
		"The env key has leaked": func(t *testing.T) situation {
			return situation{env: filledSQLite(t).env, after: wants(independent, "Revoke those at their issuers", "the compromised key envkey:", "destroy such backups", "ok         10")}
		},
		"To AWS KMS":          awsSituation,
		"To Vault":            vaultSituation,
		"To Google Cloud KMS": gcpSituation,
		"Back to the env key": func(t *testing.T) situation {
			v := newKMSVault(t)
			if r := do(t, v.env, "key", "prune"); r.code != exitOK { // the end of the way there
				t.Fatalf("%s%s", r.stdout, r.stderr)
			}
			return situation{env: append(v.env, "AWS_ENDPOINT_URL_KMS="+v.kms.URL), after: wants(independent, "ok         2")}
		},
		"The key rotated in its KMS": func(t *testing.T) situation {
			v := newKMSVault(t)
			v.key.Rotate()
			return situation{env: v.env, after: wants("1 wrap added", "removed", v.key.MaterialID())}
		},
		"The KMS does not answer": func(t *testing.T) situation {
			v := newKMSVault(t)
			v.kms.Fail("*", outage)
			return situation{env: v.env, after: wants("unavailable", "unwrap")}
		},
		"The KMS key is scheduled for deletion": func(t *testing.T) situation {
			v := newKMSVault(t)
			if r := do(t, v.env, "key", "prune"); r.code != exitOK {
				t.Fatalf("%s%s", r.stdout, r.stderr)
			}
			v.key.ScheduleDeletion(time.Now().Add(7 * 24 * time.Hour))
			if r := do(t, v.env, "key", "status"); !strings.Contains(r.stdout, "deletion") {
				t.Errorf("key status says nothing of the deletion:\n%s", r.stdout)
			}
			v.key.SetState("Enabled") // what the operator's commands in AWS do
			return situation{env: v.env, after: wants("ok    records", independent)}
		},
		"The KMS key is lost":                           lostSituation,
		"The key is lost, and there is no recovery key": abandonedSituation,
		"Which key is it?": func(t *testing.T) situation {
			d := filledSQLite(t)
			return situation{env: d.env, after: func(t *testing.T, out string) {
				if lines := strings.Fields(out); len(lines) != 2 || lines[0] != string(d.status(t, d.env).KEKID) || lines[1] == lines[0] {
					t.Errorf("printed %q", lines)
				}
			}}
		},
		"Back up SQLite":                  sqliteBackupSituation,
		"Back up PostgreSQL":              postgresBackupSituation,
		"Restore a backup":                backupSituation,
		"A part of a backup was restored": partSituation,
		"Move to another database":        moveSituation,
		"Upgrade and downgrade Lockwood":  upgradeSituation,
		"Upgrade legacy records": func(t *testing.T) situation {
			d, _ := upstreamDatabase(t)
			return situation{env: d.env, after: func(t *testing.T, out string) {
				wants("Review them", "legacy is closed")(t, out)
				if s := d.status(t, d.env); s.LegacyRecords != 0 || s.Legacy != "closed" {
					t.Errorf("%d legacy records, legacy is %s", s.LegacyRecords, s.Legacy)
				}
			}}
		},
		"Back to upstream": func(t *testing.T) situation {
			d := filledSQLite(t)
			return situation{env: d.env, after: func(t *testing.T, out string) {
				wants("Warning", "legacy     10")(t, out)
				if s := d.status(t, d.env); s.LegacyRecords != 10 {
					t.Errorf("%d legacy records", s.LegacyRecords)
				}
				serve(t, d.with("FOREST_EXECUTOR_WRITE_FORMAT=legacy")).ready(t).seals(t)
			}}
		},
		"A record does not open": func(t *testing.T) situation {
			d := filledSQLite(t)
			d.exec(t, "UPDATE "+d.table+" SET mcp_server_id = 'moved' WHERE mcp_server_id = 'server-3'")
			return situation{env: d.env, after: wants("failed     1", "moved from another row")}
		},
		"The primary fails over": failoverSituation,
	}
	for title := range books {
		if situations[title] == nil {
			t.Errorf("nothing runs the runbook %q", title)
		}
	}
	for title, prepare := range situations {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			script, ok := books[title]
			if !ok {
				t.Fatal("docs/operations.md has no such runbook")
			}
			s := prepare(t)
			for from, to := range s.values {
				if !strings.Contains(script, from) {
					t.Fatalf("the runbook no longer says %s", from)
				}
				script = strings.ReplaceAll(script, from, to)
			}
			if s.path != "" {
				script = `PATH="$PATH:` + s.path + "\"\n" + script
			}
			out, err := shell(t, append(s.env, "OLD_KEY="+testKey, "NEW_KEY="+otherKey), script).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s\n%s", err, script, out)
			}
			if s.after(t, string(out)); t.Failed() {
				t.Logf("%s", out)
			}
		})
	}
}

// rollingSituation is a fleet of two that people use, of which each was restarted with
// the new key, the old one as a previous one.
func rollingSituation(t *testing.T) situation {
	d := postgresDatabase(t, pgtest.Shared(t))
	first, second := serve(t, d.env).ready(t), serve(t, d.env).ready(t)
	env := d.changedKey()
	for i, s := range []**server{&first, &second} {
		if a := (*s).deposit(t, int64(i+1), "before", "token"); a.status >= 300 {
			t.Fatal(a)
		}
		(*s).stop(t)
		*s = serve(t, env).ready(t)
		for j, each := range []*server{first, second} { // whichever of them is which
			if a := each.deposit(t, int64(i+1), fmt.Sprintf("during-%d", j), "token"); a.status >= 300 {
				t.Fatal(a)
			}
		}
	}
	pgtest.Eventually(t, "both have the new key", func() bool {
		s := d.status(t, env)
		return len(s.Instances) == 2 && len(s.drift()) == 0
	})
	return situation{env: env, after: func(t *testing.T, out string) {
		wants("LAST SEEN", independent)(t, out)
		alone := d.with("FOREST_EXECUTOR_ENCRYPTION_KEY=" + otherKey)
		for _, s := range []*server{first, second} {
			s.stop(t)
			serve(t, alone).ready(t).seals(t)
		}
		if report := verify(t, alone, exitOK); report.OK < 6 || report.Stale != 0 {
			t.Errorf("under the new key alone: %+v", report)
		}
	}}
}

func awsSituation(t *testing.T) situation {
	d := filledSQLite(t)
	server, _, _, aws := awsKey(t)
	env := append(append(d.env, pluginsEnv(t)...), append(aws, "AWS_ENDPOINT_URL_KMS="+server.URL)...)
	return situation{env: env, after: wants("unwrap: p50", independent, "ok         10")}
}

func vaultSituation(t *testing.T) situation {
	uri, ok := vaultKey(t)
	if !ok {
		t.Skip("without Vault: LOCKWOOD_TEST_REQUIRE_SERVERS=1 builds it")
	}
	return situation{
		env:    append(filledSQLite(t).env, pluginsEnv(t)...),
		values: map[string]string{"vault://vault.example.com:8200/transit/keys/forest?auth=token&token_file=/etc/lockwood/vault-token": uri},
		after:  wants("unwrap: p50", independent, "ok         10"),
	}
}

func gcpSituation(t *testing.T) situation {
	_, uri := gcpKey(t)
	return situation{
		env:    append(filledSQLite(t).env, pluginsEnv(t)...),
		values: map[string]string{"gcpkms:///projects/P/locations/L/keyRings/R/cryptoKeys/K": uri},
		after:  wants("unwrap: p50", independent, "ok         10"),
	}
}

// lostSituation is a store whose KEK is in AWS KMS; before the day it is there.
func lostSituation(t *testing.T) situation {
	identity, err := agelib.GenerateX25519Identity()
	if err != nil {
		t.Skip("FIPS 140-only mode allows no age identity, by design:", err)
	}
	file := filepath.Join(t.TempDir(), "recovery.txt")
	if err := os.WriteFile(file, []byte(identity.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	v := newKMSVault(t)
	// Nothing but the KMS key unwraps from here on.
	env := without(v.env, "FOREST_EXECUTOR_ENCRYPTION_KEY")
	if r := do(t, v.env, "key", "prune"); r.code != exitOK {
		t.Fatalf("%s%s", r.stdout, r.stderr)
	}
	return situation{
		env:    append(env, "RECIPIENT="+identity.Recipient().String()),
		values: map[string]string{"recovery.txt": file},
		after:  wants("can be recovered through age:", "recovered through age:", independent, "with the old key arn:aws:kms:", "which is not configured here", "with the recovery key age:", "ok         2"),
	}
}

func without(env []string, name string) []string {
	var kept []string
	for _, e := range env {
		if !strings.HasPrefix(e, name+"=") {
			kept = append(kept, e)
		}
	}
	return kept
}

// abandonedSituation is a store whose key is lost, until it turns up.
func abandonedSituation(t *testing.T) situation {
	d := filledSQLite(t)
	return situation{env: without(d.env, "FOREST_EXECUTOR_ENCRYPTION_KEY"), after: func(t *testing.T, out string) {
		wants("10 credentials of 1 user would be given up", "10 credentials of 1 user given up", "10 credentials restored", independent, "ok         10")(t, out)
	}}
}

// backupSituation is a copy of a database from before a rotation, which destroyed
// the data key that the copy holds.
func backupSituation(t *testing.T) situation {
	d := filledSQLite(t)
	path := strings.TrimPrefix(d.url, "sqlite:")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if r := do(t, d.changedKey(), "key", "rotate", "--reseal", "--wait"); r.code != exitOK {
		t.Fatalf("%s%s", r.stdout, r.stderr)
	}
	if err := os.WriteFile(path+".backup", text, 0o600); err != nil {
		t.Fatal(err)
	}
	restored := &testDatabase{env: keysOf("sqlite:" + path + ".backup")}
	return situation{env: restored.changedKey(), after: func(t *testing.T, out string) {
		wants("WRAPPED UNDER", independent)(t, out)
		if report := verify(t, restored.with("FOREST_EXECUTOR_ENCRYPTION_KEY="+otherKey), exitOK); report.OK != 10 {
			t.Errorf("%+v", report)
		}
	}}
}
