package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/rotation"
)

// A dry run of destroying answers as the command would, whether or not a record
// is under the data key.
func TestDestroyDryRunAnswersAsTheCommand(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	fill(t, d.env, 3)
	old := d.status(t, d.env).DataKeys[0].KeyID
	alike := func(situation, id string, code int, want string) {
		t.Helper()
		dry, wet := do(t, d.env, "key", "destroy", id, "--dry-run"), do(t, d.env, "key", "destroy", id)
		if dry.code != code || wet.code != code || !strings.HasSuffix(wet.stderr, dry.stderr) || !strings.Contains(dry.stderr+dry.stdout, want) {
			t.Errorf("%s: the dry run says %d %q%q, the command %d %q%q", situation, dry.code, dry.stdout, dry.stderr, wet.code, wet.stdout, wet.stderr)
		}
	}
	alike("the primary with records", old, exitFound, "is the primary, which seals; run lockwood key roll first")
	alike("an unknown one", envelope.KeyID{1}.String(), exitFound, "there is no data key")
	if r := do(t, d.env, "key", "roll"); r.code != exitOK {
		t.Fatal(r.stderr)
	}
	alike("one with records", old, exitFound, "3 records are sealed under it")
	alike("the primary without records", d.status(t, d.env).DataKeys[1].KeyID, exitFound, "is the primary")
	for _, args := range [][]string{{"credentials", "reseal"}, {"key", "destroy", old}} {
		if r := do(t, d.env, args...); r.code != exitOK {
			t.Fatal(r.stderr)
		}
	}
	alike("a destroyed one", old, exitFound, "that could be destroyed")
}

// The report of the last rotation is printed again, as the command that made it
// printed it.
func TestKeyReport(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	fill(t, d.env, 3)
	if r := do(t, d.env, "key", "report"); r.code != exitOK || !strings.Contains(r.stdout, "no report of a rotation") {
		t.Errorf("before any: %d %s%s", r.code, r.stdout, r.stderr)
	}
	if r := do(t, d.env, "key", "report", "--json"); r.code != exitOK || strings.TrimSpace(r.stdout) != "null" {
		t.Errorf("before any, as JSON: %d %s%s", r.code, r.stdout, r.stderr)
	}
	made := do(t, d.changedKey(), "key", "rotate", "--reseal", "--wait", "--json")
	report := rotated(t, made)
	if r := do(t, d.changedKey(), "key", "report", "--json"); r.code != exitOK || r.stdout != made.stdout {
		t.Errorf("as JSON: %d\n%s\nwant\n%s", r.code, r.stdout, made.stdout)
	}
	var text strings.Builder
	report.Print(&text)
	// A report needs none of the keys that it is about.
	if r := do(t, d.env, "key", "report"); r.code != exitOK || r.stdout != text.String() {
		t.Errorf("as text: %d\n%s\nwant\n%s", r.code, r.stdout, &text)
	}
	for name, test := range map[string]struct {
		change func(*rotation.Report)
		want   string
	}{
		"something remains": {func(r *rotation.Report) {
			r.Independent, r.Remains = false, []string{"data key x is still wrapped under y"}
		}, "still depends on an old key"},
		"a re-seal is under way": {func(r *rotation.Report) { r.State = "running" }, "not finished: run lockwood key rotate --reseal --wait again"},
		"a rewrap broke off":     {func(r *rotation.Report) { r.State, r.Reseal = "running", false }, "not finished: run lockwood key rotate again"},
		"after a leak":           {func(r *rotation.Report) { r.State, r.Compromised = "running", []string{"k"} }, "run lockwood key rotate --compromised --wait again"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := report
			test.change(&changed)
			kept, err := json.Marshal(&changed)
			if err != nil {
				t.Fatal(err)
			}
			d.exec(t, "UPDATE lockwood_store SET report = ?", string(kept))
			if r := do(t, d.changedKey(), "key", "report"); r.code != exitFound || !strings.Contains(r.stdout, test.want) {
				t.Errorf("%d %s%s", r.code, r.stdout, r.stderr)
			}
			var got rotation.Report
			if do(t, d.changedKey(), "key", "report", "--json").json(t, &got); got.State != changed.State {
				t.Errorf("as JSON the state is %q", got.State)
			}
		})
	}
}

// A store that is closed to legacy records says how to go back to upstream, and
// that way works.
func TestGoingBackToUpstreamOnAClosedStore(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	fill(t, d.env, 1)
	back := d.with("FOREST_EXECUTOR_WRITE_FORMAT=legacy")
	r := do(t, append(back, "HTTP_HOST=127.0.0.1", "HTTP_PORT=0", "ADMIN_ADDR="), "serve")
	if r.code != exitUsage || !strings.Contains(r.stderr, "run lockwood key legacy open first") {
		t.Fatalf("%d %s", r.code, r.stderr)
	}
	if r := do(t, back, "key", "legacy", "open"); r.code != exitOK || strings.Contains(r.stdout, "FOREST_EXECUTOR_LEGACY") {
		t.Fatalf("%d %s%s", r.code, r.stdout, r.stderr)
	}
	s := serve(t, back).ready(t)
	if a := s.deposit(t, 1, "legacy", "token"); a.status >= 300 || !legacyRecord(d.record(t, 1, "legacy")) {
		t.Errorf("%+v", a)
	}
}

// Opening the database to legacy records is half of it where the configuration
// refuses them.
func TestOpeningLegacyNamesTheConfiguration(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	fill(t, d.env, 1)
	env := d.with("FOREST_EXECUTOR_LEGACY=closed")
	for _, args := range [][]string{{"key", "legacy", "open", "--dry-run"}, {"key", "legacy", "open"}} {
		if r := do(t, env, args...); r.code != exitOK || !strings.Contains(r.stdout, "FOREST_EXECUTOR_LEGACY=closed") {
			t.Errorf("%v: %d %s%s", args, r.code, r.stdout, r.stderr)
		}
	}
	var opened legacyOpened
	if do(t, env, "key", "legacy", "open", "--json").json(t, &opened); opened.Legacy != "open" || !opened.StillRefused {
		t.Errorf("%+v", opened)
	}
}

// legacyRecord reports whether a record names no data key.
func legacyRecord(record []byte) bool {
	_, sealed := envelope.ParseHeader(record)
	return !sealed
}
