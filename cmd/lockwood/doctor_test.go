package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/internal/awstest"
	"github.com/lockwood-kms/lockwood/providers/envkey"
)

// What is wrong with the key decides what to do about it.
func TestKeyRemedies(t *testing.T) {
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
