package main

import (
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core/envelope"
)

// A dry run of destroying answers as the command would, whether or not a record
// is under the data key.
func TestDestroyDryRunAnswersAsTheCommand(t *testing.T) {
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
