package main

import (
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/internal/awstest"
	"github.com/lockwood-kms/lockwood/rotation"
)

// cryptoCalls is how many calls the KMS would bill as cryptographic.
func cryptoCalls(s *awstest.Server) int {
	n := s.Calls()
	return n["GenerateDataKey"] + n["Encrypt"] + n["Decrypt"]
}

// The plan tells how many crypto calls the KMS gets, and which wraps come and go; the
// rotation then does just that.
func TestThePlanIsWhatHappens(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	fill(t, d.env, 4)
	for range 2 { // three data keys, of which two have records
		if r := do(t, d.env, "key", "roll"); r.code != exitOK {
			t.Fatal(r.stderr)
		}
	}
	fill(t, d.env, 2)
	kms, key, uri, aws := awsKey(t)
	env := append(append(d.env, pluginsEnv(t)...), append(aws, "FOREST_EXECUTOR_KEY_PROVIDER="+uri)...)

	run := func(what string, args ...string) (rotation.Plan, rotation.Report) {
		t.Helper()
		var plan rotation.Plan
		do(t, env, append(args, "--dry-run")...).json(t, &plan)
		before := cryptoCalls(kms)
		report := rotated(t, do(t, env, args...))
		if calls := cryptoCalls(kms) - before; calls != plan.KMSCalls {
			t.Errorf("%s: the KMS got %d calls, and %d were expected", what, calls, plan.KMSCalls)
		}
		if report.Rewrapped != len(plan.Lacking) || len(report.Pruned) != len(plan.Prune) || len(report.Destroyed) != len(plan.Destroy) {
			t.Errorf("%s: the plan is %+v, the report %+v", what, plan, report)
		}
		return plan, report
	}
	plan, report := run("to the KMS", "key", "rotate", "--json")
	if len(plan.Lacking) != 3 || len(plan.Prune) != 3 || len(plan.Backups) != 1 || len(report.Backups) != 1 {
		t.Errorf("to the KMS: %+v", plan)
	}
	if plan, _ := run("nothing to do", "key", "rotate", "--json"); len(plan.Lacking)+len(plan.Prune) != 0 {
		t.Errorf("nothing to do: %+v", plan)
	}
	key.Rotate()
	if plan, _ := run("the key rotated", "key", "rotate", "--json"); len(plan.Lacking) != 3 || len(plan.Prune) != 3 {
		t.Errorf("the key rotated: %+v", plan)
	}
	if plan, report := run("with new data keys", "key", "rotate", "--reseal", "--wait", "--json"); len(plan.Destroy) != 3 || !report.Independent {
		t.Errorf("with new data keys: %+v, %+v", plan, report)
	}
}

// What the rotation would refuse, the plan says: a key that is missing, and a KEK that
// may be a recovery KEK; and with --force that it would go on.
func TestThePlanSaysWhatStandsAgainstIt(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	fill(t, d.env, 2)
	forgotten := d.with("FOREST_EXECUTOR_ENCRYPTION_KEY=" + otherKey)
	refuses := func(want int, env []string, args ...string) rotation.Plan {
		t.Helper()
		var plan rotation.Plan
		r := do(t, env, append(args, "--dry-run", "--json")...)
		r.json(t, &plan)
		if r.code != want {
			t.Errorf("%v: exit code %d, want %d: %v", args, r.code, want, plan.Blockers)
		}
		return plan
	}
	if plan := refuses(exitFound, forgotten, "key", "rotate"); len(plan.Blockers) != 2 {
		t.Errorf("without the old key: %q", plan.Blockers)
	}
	if plan := refuses(exitFound, d.env, "key", "rotate", "--compromised"); len(plan.Blockers) != 1 || len(plan.Compromised) != 0 {
		t.Errorf("without a previous key: %+v", plan)
	}
	if plan := refuses(exitOK, d.changedKey(), "key", "rotate", "--compromised"); len(plan.Compromised) != 1 || len(plan.Destroy) != 1 {
		t.Errorf("with one: %+v", plan)
	}
	if r := do(t, d.changedKey(), "key", "rewrap"); r.code != exitOK {
		t.Fatal(r.stderr)
	}
	if r := do(t, forgotten, "key", "prune"); r.code != exitFound || strings.Contains(r.stdout, "nothing to prune") {
		t.Errorf("pruning a wrap that may be of a recovery KEK: %d %s", r.code, r.stdout)
	}
	if plan := refuses(exitOK, forgotten, "key", "rotate", "--force"); len(plan.Blockers) != 1 {
		t.Errorf("by force: %q", plan.Blockers)
	}
}
