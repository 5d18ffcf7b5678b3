package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// How far a re-seal is, in words: what to wait for, and what to do if there is
// nothing to wait for.
func TestResealWords(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const command = "lockwood key rotate --reseal --wait"
	base := resealStatus{Running: true, Planned: true, UpdatedAt: now.Add(-5 * time.Second), Command: command,
		progressLine: progressLine{Total: 100, Done: 40, Rate: 20, Left: 3}}
	for name, test := range map[string]struct {
		change func(*resealStatus)
		want   string
	}{
		"under way":           {func(*resealStatus) {}, "under way, 20 a second, 3s left"},
		"being planned":       {func(r *resealStatus) { r.Planned, r.Left = false, 0 }, "under way, 20 a second, more is being found"},
		"planned, no rate":    {func(r *resealStatus) { r.Done, r.Rate, r.Left = 0, 0, 0 }, "under way, 0 a second, how long is not known yet"},
		"ended":               {func(r *resealStatus) { r.Running = false }, "ended"},
		"all sealed":          {func(r *resealStatus) { r.Sealed, r.Done = true, 97 }, "all that was found is sealed anew; finish with " + command},
		"more than expected":  {func(r *resealStatus) { r.Done, r.Left = 120, 0 }, "under way, 20 a second, how long is not known yet"},
		"all so far":          {func(r *resealStatus) { r.Planned, r.Done, r.Left = false, 100, 0 }, "under way, 20 a second, more is being found"},
		"stopped":             {func(r *resealStatus) { r.UpdatedAt = now.Add(-3 * time.Minute) }, "no progress for 3 minutes; run " + command + " again"},
		"all sealed long ago": {func(r *resealStatus) { r.Sealed, r.UpdatedAt = true, now.Add(-time.Hour) }, "all that was found is sealed anew; finish with " + command},
	} {
		t.Run(name, func(t *testing.T) {
			r := base
			if test.change(&r); r.words(now) != test.want {
				t.Errorf("%q, want %q", r.words(now), test.want)
			}
		})
	}
}

// A re-seal that one command works on is seen under way from any other place, with
// what it still does and, when nobody works on it any more, with how to go on.
func TestStatusShowsAResealUnderWay(t *testing.T) {
	t.Parallel()
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		fill(t, d.env, 40)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		command := lockwood(ctx, t, d.changedKey(), "key", "rotate", "--reseal", "--wait", "--max-rate", "4")
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		var s keyStatus
		pgtest.Eventually(t, "the re-seal is under way", func() bool {
			s = d.status(t, d.env)
			return s.Reseal != nil && s.Reseal.Done > 0
		})
		if r := s.Reseal; !r.Running || r.MaxRate != 4 || r.Total > 40 || r.UpdatedAt.Before(r.StartedAt) || r.Command != "lockwood key rotate --reseal --wait" {
			t.Errorf("the status is %+v", r)
		}
		if text := do(t, d.env, "key", "status").stdout; !strings.Contains(text, "credentials, 0 skipped, 0 do not open; under way, ") {
			t.Errorf("as text:\n%s", text)
		}
		stop()
		_ = command.Wait()
		ago := "strftime('%Y-%m-%d %H:%M:%f +00:00', 'now', '-185 seconds')"
		if d.pg != nil {
			ago = "now() - interval '185 seconds'"
		}
		d.exec(t, "UPDATE "+d.schema+"lockwood_reseal SET updated_at = "+ago)
		if text := do(t, d.env, "key", "status").stdout; !strings.Contains(text, "no progress for 3 minutes; run lockwood key rotate --reseal --wait again") {
			t.Errorf("as text, after it was killed:\n%s", text)
		}
		rotated(t, do(t, d.changedKey(), "key", "rotate", "--reseal", "--wait", "--json"))
		if r := d.status(t, d.changedKey()).Reseal; r.Running {
			t.Errorf("afterwards the status is %+v", r)
		}
	})
}

// What the instances sealed anew by themselves is to be finished by a command, and
// the status says by which.
func TestStatusSaysHowToFinish(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	fill(t, d.env, 5)
	env := d.changedKey()
	serve(t, env).ready(t)
	pgtest.Eventually(t, "the instance is seen", func() bool { return len(d.status(t, env).Instances) == 1 })
	if r := do(t, env, "key", "rotate", "--reseal"); r.code != exitOK {
		t.Fatal(r.stderr)
	}
	pgtest.Eventually(t, "all is sealed anew", func() bool {
		return strings.Contains(do(t, env, "key", "status").stdout, "all that was found is sealed anew; finish with lockwood key rotate --reseal --wait")
	})
	if r := do(t, env, "key", "report"); r.code != exitFound || !strings.Contains(r.stdout, "is not finished") {
		t.Errorf("the report meanwhile: %d %s%s", r.code, r.stdout, r.stderr)
	}
	rotated(t, do(t, env, "key", "rotate", "--reseal", "--wait", "--json"))
	if text := do(t, env, "key", "status").stdout; !strings.Contains(text, "do not open; ended") {
		t.Errorf("afterwards:\n%s", text)
	}
}
