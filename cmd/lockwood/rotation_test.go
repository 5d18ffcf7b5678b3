package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/rotation"
)

// fill deposits n credentials of user 1, half of them again, by a service that is
// then gone.
func fill(t *testing.T, env []string, n int) {
	t.Helper()
	s := serve(t, append(env, "DRAIN_GRACE=0s")).ready(t)
	defer s.stop(t)
	for i := range n {
		if a := s.deposit(t, 1, fmt.Sprintf("server-%d", i), fmt.Sprintf("token-%d", i)); a.status != http.StatusNoContent && a.status != http.StatusOK && a.status != http.StatusCreated {
			t.Fatalf("deposit: %d %s", a.status, a.body)
		}
	}
}

func (d *testDatabase) status(t *testing.T, env []string) keyStatus {
	t.Helper()
	var s keyStatus
	do(t, env, "key", "status", "--json").json(t, &s)
	return s
}

// rotated is the report of a command that ended well.
func rotated(t *testing.T, r result) rotation.Report {
	t.Helper()
	if r.code != exitOK {
		t.Fatalf("exit code %d\n%s\n%s", r.code, r.stdout, r.stderr)
	}
	var report rotation.Report
	r.json(t, &report)
	return report
}

// changedKey is the configuration with a new env key, the old one as a previous one.
func (d *testDatabase) changedKey() []string {
	return d.with("FOREST_EXECUTOR_ENCRYPTION_KEY="+otherKey, "FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS="+testKey)
}

// One command moves a store to a new env key, and afterwards the old one is not
// needed: not for a record, not for a data key.
func TestRotateTheEnvKey(t *testing.T) {
	t.Parallel()
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		fill(t, d.env, 30)
		env := d.changedKey()

		var plan rotation.Plan
		do(t, env, "key", "rotate", "--reseal", "--wait", "--max-rate", "2", "--dry-run", "--json").json(t, &plan)
		if plan.Sampled != 30 || plan.Seconds != 15 {
			t.Errorf("the plan expects %+v, want 15 s at 2 credentials a second", plan.Expectation)
		}
		if plan.Stale != 30 || len(plan.Destroy) != 1 || len(plan.Lacking) != 1 || len(plan.Blockers) != 0 {
			t.Errorf("the plan is %+v", plan)
		}
		if s := d.status(t, d.env); len(s.DataKeys) != 1 || s.State != "ready" {
			t.Errorf("after the dry run: %+v", s)
		}

		// Without --reseal the old key still opens what is in old backups, and the
		// report does not claim otherwise.
		report := rotated(t, do(t, env, "key", "rotate", "--json"))
		if report.Independent || report.Rewrapped != 1 || len(report.Pruned) != 1 || len(report.Backups) != 1 || report.Backups[0].Records != 30 {
			t.Errorf("the report of a rewrap is %+v", report)
		}

		report = rotated(t, do(t, env, "key", "rotate", "--reseal", "--wait", "--json"))
		if !report.Independent || report.Resealed.Rows != 30 || report.Verified.OK != 30 || len(report.Destroyed) != 1 {
			t.Errorf("the report is %+v", report)
		}
		if len(report.Backups) != 1 || report.Backups[0].Records != 30 {
			t.Errorf("the report does not say that older backups open with the key whose wrap was pruned: %+v", report.Backups)
		}
		// Nobody is told of independence whose new key did not get here.
		text := do(t, env, "key", "rotate", "--reseal", "--wait")
		if text.code != exitOK || !strings.Contains(text.stdout, "no other key was found") || strings.Contains(text.stdout, independent) {
			t.Errorf("%d\n%s%s", text.code, text.stdout, text.stderr)
		}
		text = do(t, env, "key", "rotate")
		if text.code != exitOK || !strings.Contains(text.stdout, "There was nothing to move") {
			t.Errorf("%d\n%s%s", text.code, text.stdout, text.stderr)
		}

		alone := d.with("FOREST_EXECUTOR_ENCRYPTION_KEY=" + otherKey)
		if report := verify(t, alone, exitOK); report.OK != 30 || report.Stale != 0 {
			t.Errorf("under the new key alone: %+v", report)
		}
		if r := do(t, d.env, "credentials", "verify", "--json"); r.code == exitOK {
			t.Error("the old key still opens the records")
		}
	})
}

// A live instance that could not follow stops the rotation, by name.
func TestRotateRefusesWhileAnInstanceCouldNotFollow(t *testing.T) {
	t.Parallel()
	d := postgresDatabase(t, pgtest.Shared(t))
	s := serve(t, d.env).ready(t)
	if a := s.deposit(t, 1, "a", "token"); a.status >= 300 {
		t.Fatal(a)
	}
	pgtest.Eventually(t, "the instance is seen", func() bool { return len(d.status(t, d.env).Instances) == 1 })
	env := d.changedKey()
	r := do(t, env, "key", "rotate", "--reseal", "--wait")
	host, _ := os.Hostname()
	if r.code != exitFound || !strings.Contains(r.stderr, host) || !strings.Contains(r.stderr, "did not begin") {
		t.Fatalf("%d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if got := d.status(t, d.env); len(got.DataKeys) != 1 || len(got.DataKeys[0].Wraps) != 1 {
		t.Errorf("something was written: %+v", got.DataKeys)
	}
}

// When the env key is lost, the identity of the recovery recipient brings
// everything back under a new key, and a drill had said so.
func TestRecoverWithAnIdentity(t *testing.T) {
	t.Parallel()
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		file, variable := ageIdentity(t)
		fill(t, d.env, 10)
		protected := append(d.env, variable)
		if r := do(t, d.env, "recover", "--drill", "--identity", file); r.code != exitFound {
			t.Errorf("a drill before there is a recovery wrap: %d %s%s", r.code, r.stdout, r.stderr)
		}
		if got := d.status(t, protected); !strings.Contains(strings.Join(got.Problems, "\n"), "lacks a wrap under a recovery KEK") {
			t.Errorf("the status does not warn: %v", got.Problems)
		}
		if r := do(t, protected, "key", "rewrap"); r.code != exitOK {
			t.Fatalf("key rewrap: %s%s", r.stdout, r.stderr)
		}
		// The drill needs nothing but the database and the identity.
		drillEnv := d.with("FOREST_EXECUTOR_ENCRYPTION_KEY", "FOREST_AUTH_SECRET")
		var drill drilled
		r := do(t, drillEnv, "recover", "--drill", "--identity", file, "--json")
		if r.json(t, &drill); r.code != exitOK || !drill.OK || drill.Opened != 10 {
			t.Fatalf("the drill: %d %s%s", r.code, r.stdout, r.stderr)
		}

		lost := d.with("FOREST_EXECUTOR_ENCRYPTION_KEY=" + otherKey)
		if r := do(t, lost, "recover", "--identity", file); r.code != exitOK || !strings.Contains(r.stdout, "recovered through age:") {
			t.Fatalf("recover: %d %s%s", r.code, r.stdout, r.stderr)
		}
		if report := verify(t, lost, exitOK); report.OK != 10 || report.Stale != 10 {
			t.Errorf("after recovery: %+v", report)
		}
		report := rotated(t, do(t, lost, "key", "rotate", "--reseal", "--wait", "--json"))
		if !report.Independent {
			t.Errorf("the report is %+v", report)
		}
	})
}

// The steps by themselves: roll, destroy, prune, each with its refusal.
func TestKeySteps(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	fill(t, d.env, 3)
	old := d.status(t, d.env).DataKeys[0].KeyID
	if r := do(t, d.env, "key", "destroy", old); r.code != exitFound || !strings.Contains(r.stderr, "key roll") {
		t.Errorf("destroying the primary: %d %s", r.code, r.stderr)
	}
	if r := do(t, d.env, "key", "roll"); r.code != exitOK {
		t.Fatal(r.stderr)
	}
	if r := do(t, d.env, "key", "destroy", old); r.code != exitFound || !strings.Contains(r.stdout, "3 records") {
		t.Errorf("destroying a data key in use: %d %s", r.code, r.stdout)
	}
	if r := do(t, d.env, "credentials", "reseal"); r.code != exitOK {
		t.Fatal(r.stderr)
	}
	if r := do(t, d.env, "key", "destroy", old, "--dry-run"); r.code != exitOK || !strings.Contains(r.stdout, "would be destroyed") {
		t.Errorf("the dry run: %d %s", r.code, r.stdout)
	}
	if r := do(t, d.env, "key", "destroy", old); r.code != exitOK {
		t.Fatal(r.stderr)
	}
	if r := do(t, d.env, "key", "destroy", "nonsense"); r.code != exitUsage {
		t.Errorf("destroying nonsense: %d", r.code)
	}
	if r := do(t, d.env, "key", "prune"); r.code != exitOK || !strings.Contains(r.stdout, "nothing to prune") {
		t.Errorf("pruning: %d %s", r.code, r.stdout)
	}
}

// After a key leaked nothing stays that it opens, and no data key is ever wrapped
// under it again.
func TestRotateAfterALeak(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	fill(t, d.env, 5)
	if r := do(t, d.env, "key", "rotate", "--compromised", "--wait"); r.code != exitFound || !strings.Contains(r.stderr, "no previous key is configured") {
		t.Errorf("without a new key: %d %s", r.code, r.stderr)
	}
	env := d.changedKey()
	r := do(t, env, "key", "rotate", "--compromised", "--wait")
	if r.code != exitOK || !strings.Contains(r.stdout, "Revoke") || !strings.Contains(r.stdout, independent) {
		t.Fatalf("%d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if s := d.status(t, env); len(s.Compromised) != 1 {
		t.Errorf("compromised are %v", s.Compromised)
	}
	verify(t, d.with("FOREST_EXECUTOR_ENCRYPTION_KEY="+otherKey), exitOK)
	// Who goes back to the leaked key gets no data key wrapped under it.
	back := d.with("FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS=" + otherKey)
	if r := do(t, back, "key", "roll"); r.code == exitOK {
		t.Error("a data key was made under the compromised key")
	}
}

// A data key that is made while half of the instances still run with the old key is
// one that both kinds use: nobody's deposits fail, and nobody fails to open.
func TestRollInTheMiddleOfARollingDeployment(t *testing.T) {
	t.Parallel()
	d := postgresDatabase(t, pgtest.Shared(t))
	older := serve(t, d.env).ready(t)
	env := d.changedKey()
	newer := serve(t, env).ready(t)
	pgtest.Eventually(t, "both are seen", func() bool { return len(d.status(t, env).Instances) == 2 })
	if r := do(t, env, "key", "roll"); r.code != exitOK {
		t.Fatalf("%s%s", r.stdout, r.stderr)
	}
	s := d.status(t, env)
	if k := s.DataKeys[len(s.DataKeys)-1]; !k.Primary || len(k.Wraps) != 2 {
		t.Errorf("the data key made in the middle is %+v", k)
	}
	if !strings.Contains(strings.Join(s.Problems, "\n"), "wrap under different keys") {
		t.Errorf("the status says nothing of the drift: %v", s.Problems)
	}
	primary := s.DataKeys[len(s.DataKeys)-1].KeyID
	for name, i := range map[string]*server{"older": older, "newer": newer} {
		pgtest.Eventually(t, name+" seals under the new data key", func() bool {
			if a := i.deposit(t, 1, name, "token"); a.status >= 300 {
				t.Fatalf("%s: %+v", name, a)
			}
			id, _ := envelope.ParseHeader(d.record(t, 1, name))
			return id.String() == primary
		})
	}
	for _, e := range [][]string{d.env, env} {
		if report := verify(t, e, exitOK); report.OK != 2 {
			t.Errorf("%+v", report)
		}
	}
}
