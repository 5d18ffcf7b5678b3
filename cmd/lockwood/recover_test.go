package main

import (
	"strings"
	"testing"
)

// ring is what a store keeps of its data keys, as text.
func (d *testDatabase) ring(t *testing.T) string {
	t.Helper()
	return column(t, d, "SELECT 'key ' || hex(key_id) || version || state || COALESCE(is_primary, '') FROM lockwood_data_keys ORDER BY 1") +
		column(t, d, "SELECT 'wrap ' || hex(key_id) || kek_id || hex(wrapped) FROM lockwood_data_key_wraps ORDER BY 1")
}

// A dry run of recovery says what is lost and through what it would come back,
// and writes nothing.
func TestRecoverDryRun(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	file, variable := ageIdentity(t)
	fill(t, append(d.env, variable), 2)
	if r := do(t, d.env, "recover", "--dry-run", "--identity", file); r.code != exitOK || !strings.Contains(r.stdout, "nothing is lost") {
		t.Errorf("with the key: %d %s%s", r.code, r.stdout, r.stderr)
	}
	if r := do(t, d.env, "key", "roll"); r.code != exitOK { // without the recovery KEK, so that this one does not come back
		t.Fatal(r.stderr)
	}
	before := d.ring(t)
	lost := d.with("FOREST_EXECUTOR_ENCRYPTION_KEY=" + otherKey)
	r := do(t, lost, "recover", "--dry-run", "--identity", file)
	if r.code != exitFound || !strings.Contains(r.stdout, "(version 1) would be recovered through age:") ||
		!strings.Contains(r.stdout, "has no wrap under the recovery keys at hand") || !strings.Contains(r.stdout, "nothing was written") {
		t.Errorf("without the key: %d %s%s", r.code, r.stdout, r.stderr)
	}
	var plan recovery
	do(t, lost, "recover", "--dry-run", "--identity", file, "--json").json(t, &plan)
	if !plan.DryRun || len(plan.DataKeys) != 2 || plan.DataKeys[0].Problem != "" || plan.DataKeys[1].Problem == "" {
		t.Errorf("as JSON: %+v", plan)
	}
	other, _ := ageIdentity(t)
	if r := do(t, lost, "recover", "--dry-run", "--identity", other); r.code != exitFound || strings.Contains(r.stdout, "would be recovered") {
		t.Errorf("with another identity: %d %s%s", r.code, r.stdout, r.stderr)
	}
	if after := d.ring(t); after != before {
		t.Errorf("it wrote:\n%s\nwas\n%s", after, before)
	}
	// The data key that the previous key unwraps is not lost.
	kept := d.with("FOREST_EXECUTOR_ENCRYPTION_KEY="+otherKey, "FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS="+testKey)
	if r := do(t, kept, "recover", "--dry-run", "--identity", file); r.code != exitOK || !strings.Contains(r.stdout, "nothing is lost") {
		t.Errorf("with the key as a previous one: %d %s%s", r.code, r.stdout, r.stderr)
	}
	// Everything that can come back does, and the command says what cannot.
	r = do(t, lost, "recover", "--identity", file, "--json")
	var done recovery
	if r.json(t, &done); r.code != exitFound || done.DryRun || len(done.DataKeys) != 2 || done.DataKeys[0].Via != plan.DataKeys[0].Via {
		t.Errorf("the command itself: %d %s%s", r.code, r.stdout, r.stderr)
	}
}

// A KMS that does not answer has not lost anything.
func TestRecoverDryRunWaitsForAKMS(t *testing.T) {
	t.Parallel()
	v := newKMSVault(t)
	file, _ := ageIdentity(t)
	d := &testDatabase{env: v.env}
	var uri string
	for _, e := range v.env {
		if value, ok := strings.CutPrefix(e, "FOREST_EXECUTOR_KEY_PROVIDER="); ok {
			uri = value
		}
	}
	env := append(d.with("FOREST_EXECUTOR_KEY_PROVIDER", "FOREST_EXECUTOR_ENCRYPTION_KEY="+otherKey), "FOREST_EXECUTOR_PREVIOUS_KEY_PROVIDERS="+uri)
	v.kms.Fail("*", outage)
	if r := do(t, env, "recover", "--dry-run", "--identity", file); r.code != exitUnavailable {
		t.Errorf("%d %s%s", r.code, r.stdout, r.stderr)
	}
}
