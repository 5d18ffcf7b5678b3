package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/internal/awstest"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/providers/envkey"
)

// What is wrong with the key decides what to do about it.
func TestKeyRemedies(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err          error
		want, absent string
	}{
		{core.ErrKeyMissing, "set FOREST_EXECUTOR_ENCRYPTION_KEY", "lockwood recover"},
		{core.ErrKeyMismatch, "the key that this store was written with", "plugin check"},
		{core.ErrKeyMismatch, "lockwood recover", "permission"},
		{core.ErrKeyDenied, "permission", "written with"},
		{core.ErrKeyDenied, "lockwood plugin check awskms:///alias/x", "written with"},
		{core.ErrUnavailable, "do not restart", "written with"},
		{core.ErrUnavailable, "lockwood plugin check awskms:///alias/x", "written with"},
		{keyring.ErrLegacyClosed, "lockwood key legacy open", "written with"},
		{errors.New("something else"), "lockwood key status", "written with"},
	} {
		got := keyRemedy(fmt.Errorf("asking: %w", test.err), "awskms:///alias/x")
		if !strings.Contains(got, test.want) || strings.Contains(got, test.absent) {
			t.Errorf("%v: %q", test.err, got)
		}
	}
	if got := keyRemedy(core.ErrUnavailable, envkey.URI); strings.Contains(got, "plugin") {
		t.Errorf("the env key is no plugin's: %q", got)
	}
	if got := keyRemedy(core.ErrUnavailable, "awskms:///alias/x?region=a&profile=b"); !strings.Contains(got, "'awskms:///alias/x?region=a&profile=b'") {
		t.Errorf("a URI that a shell would take apart: %q", got)
	}
}

// Doctor judges a KMS that denies or does not answer as what it is.
func TestDoctorOnAKMS(t *testing.T) {
	t.Parallel()
	v := newKMSVault(t)
	for name, test := range map[string]struct {
		spoil func() (restore func())
		want  string
	}{
		"denied":      {func() func() { return v.key.SetState(awstest.Disabled) }, "enable the key"},
		"unavailable": {func() func() { return v.kms.Fail("*", outage) }, "do not restart"},
	} {
		restore := test.spoil()
		var findings []finding
		r := do(t, v.env, "doctor", "--json")
		r.json(t, &findings)
		restore()
		for _, f := range findings {
			if f.Check == "key" && (f.Verdict != verdictFail || !strings.Contains(f.Remedy, test.want)) {
				t.Errorf("%s: %+v", name, f)
			}
		}
		if r.code != exitFound {
			t.Errorf("%s: exit code %d", name, r.code)
		}
	}
}

// Legacy records that are refused are told with what refuses them: what the
// database closed, no variable opens.
func TestLegacyRemedies(t *testing.T) {
	t.Parallel()
	d, _ := upstreamDatabase(t)
	serve(t, d.env).ready(t).stop(t)
	closedHere := append(d.env, "FOREST_EXECUTOR_LEGACY=closed")
	told := func(env []string) (string, keyStatus) {
		s := d.status(t, env)
		return do(t, env, "doctor").stdout + strings.Join(s.Problems, "\n"), s
	}
	if text, s := told(closedHere); strings.Count(text, "unset FOREST_EXECUTOR_LEGACY") != 2 || strings.Contains(text, "key legacy open") || s.LegacyClosedBy != "configuration" {
		t.Errorf("closed by the configuration (%q):\n%s", s.LegacyClosedBy, text)
	}
	// As a backup restored without its constraints, or somebody who removed them.
	d.exec(t, "UPDATE forest.lockwood_store SET legacy = 'closed'")
	for _, env := range [][]string{d.env, closedHere} {
		if text, s := told(env); strings.Contains(text, "unset FOREST_EXECUTOR_LEGACY") || strings.Count(text, "lockwood key legacy open") != 2 || s.LegacyClosedBy != "database" {
			t.Errorf("closed by the database (%q):\n%s", s.LegacyClosedBy, text)
		}
	}
	if s := d.status(t, sqliteDatabaseWithOne(t).env); s.Legacy != "closed" || s.LegacyClosedBy != "database" {
		t.Errorf("a new store is %s by %q", s.Legacy, s.LegacyClosedBy)
	}
}

func sqliteDatabaseWithOne(t *testing.T) *testDatabase {
	d := sqliteDatabase(t)
	fill(t, d.env, 1)
	return d
}

// Doctor says what a fresh store needs, before the first start, and makes nothing.
func TestDoctorBeforeTheFirstStart(t *testing.T) {
	t.Parallel()
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		env := d.env
		if d.pg == nil {
			env = d.with("DATABASE_URL=" + d.url + ".yet")
		}
		r := do(t, env, "doctor", "--json")
		var findings []finding
		if r.json(t, &findings); r.code != exitOK {
			t.Errorf("exit code %d: %s", r.code, r.stdout)
		}
		if list := found(t, env, "schema"); len(list) != 1 || list[0].Verdict != verdictWarn || !strings.Contains(list[0].Remedy, "lockwood serve makes") {
			t.Errorf("doctor says %+v", list)
		}
		if d.pg == nil {
			if _, err := os.Stat(d.file() + ".yet"); err == nil {
				t.Error("doctor made the database file")
			}
			if list := found(t, d.with("DATABASE_URL="+d.url+"/none/yet"), "schema"); len(list) != 1 || list[0].Verdict != verdictFail {
				t.Errorf("without the directory: %+v", list)
			}
			return
		}
		role := nameOf(t, d.url) + "_new"
		d.exec(t, "CREATE ROLE "+role+" LOGIN")
		as := d.with("DATABASE_URL=" + d.pg.URL(role, nameOf(t, d.url)))
		if list := found(t, as, "rights"); len(list) != 1 || !strings.Contains(list[0].Detail, "CREATE on DATABASE") {
			t.Errorf("a role that may not make the schema: %+v", list)
		}
		d.exec(t, "CREATE SCHEMA forest; GRANT USAGE ON SCHEMA forest TO "+role)
		list := found(t, as, "rights")
		if len(list) != 1 || !strings.Contains(list[0].Detail, "CREATE on SCHEMA forest") {
			t.Fatalf("a role that may not make the tables: %+v", list)
		}
		d.exec(t, afterRun(list[0].Remedy))
		if list := found(t, as, "rights"); len(list) != 0 {
			t.Errorf("after the remedy: %+v", list)
		}
		serve(t, append(as, "DRAIN_GRACE=0s")).ready(t)
	})
}

// Doctor tells of a rotation that was begun, of keys that are swapped or of no use, and of
// an instance that lacks the recovery keys.
func TestDoctorOnKeysInMotion(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	fill(t, d.env, 6)
	unused := d.with("FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS=" + otherKey)
	if list := found(t, unused, "previous keys"); len(list) != 1 || !strings.Contains(list[0].Detail, "opens nothing") || !strings.Contains(list[0].Remedy, "make it the current one") {
		t.Errorf("the new key as the previous one: %+v", list)
	}
	if list := found(t, d.env, "rotation"); len(list) != 0 {
		t.Errorf("before: %+v", list)
	}
	x := at(t, 80, d.changedKey(), "key", "rotate", "--reseal", "--wait", "--max-rate", "1")
	x.shows(t, "sealing anew")
	x.types(t, "\x03")
	x.code()
	if list := found(t, d.changedKey(), "rotation"); len(list) != 1 || list[0].Verdict != verdictWarn || !strings.Contains(list[0].Detail, "is not finished") || list[0].Remedy != "run: lockwood key rotate --reseal --wait" {
		t.Errorf("half-done: %+v", list)
	}
	rotated(t, do(t, d.changedKey(), "key", "rotate", "--reseal", "--wait", "--json"))
	if list := found(t, d.changedKey(), "rotation"); len(list) != 0 {
		t.Errorf("done: %+v", list)
	}
	swapped := d.with("FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS=" + otherKey)
	list := found(t, swapped, "previous keys")
	if len(list) != 1 || !strings.Contains(list[0].Detail, "look swapped") {
		t.Errorf("swapped: %+v", list)
	}

	_, recovery := ageIdentity(t)
	current := d.with("FOREST_EXECUTOR_ENCRYPTION_KEY=" + otherKey)
	s := serve(t, append(current, "DRAIN_GRACE=0s")).ready(t)
	lacking := func() []finding {
		return slices.DeleteFunc(found(t, append(slices.Clone(current), recovery), "recovery"), func(f finding) bool { return !strings.Contains(f.Detail, "runs without the recovery keys") })
	}
	pgtest.Eventually(t, "the instance is known", func() bool { return len(d.status(t, current).Instances) == 1 })
	if list := lacking(); len(list) != 1 {
		t.Errorf("an instance without the recovery keys: %+v", list)
	}
	s.stop(t)
	if list := lacking(); len(list) != 0 {
		t.Errorf("after it was stopped: %+v", list)
	}
}
