package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// That two instances on one store differ shows on each of them: in its metrics, in
// its readiness, which it does not change, and once in its log. So does that they
// are alike again.
func TestDriftShows(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	quiet := serve(t, d.env).ready(t)
	other := serve(t, append(d.env, "RATE_LIMIT=7", "DRAIN_GRACE=0s")).ready(t)
	for name, s := range map[string]*server{"the first": quiet, "the second": other} {
		pgtest.Eventually(t, name+" sees the drift", func() bool {
			return strings.Contains(bodyOf(t, s.admin+"/metrics"), "\nlockwood_fleet_drift 1\n")
		})
		if text := bodyOf(t, s.admin+"/metrics"); !strings.Contains(text, "\nlockwood_instances_live 2\n") {
			t.Errorf("%s counts other live instances", name)
		}
		var ready struct{ Keys map[string]string }
		if err := json.Unmarshal([]byte(bodyOf(t, s.ready(t).admin+"/readyz")), &ready); err != nil || !strings.Contains(ready.Keys["fleet"], "are configured differently") {
			t.Errorf("%s is ready with %v, %v", name, ready.Keys, err)
		}
		pgtest.Eventually(t, name+" logs it once", func() bool {
			return strings.Count(s.log.String(), "the instances on this store differ") == 1
		})
	}
	other.stop(t)
	pgtest.Eventually(t, "the first sees that they are alike", func() bool {
		return strings.Contains(bodyOf(t, quiet.admin+"/metrics"), "\nlockwood_fleet_drift 0\n")
	})
	pgtest.Eventually(t, "the first logs that", func() bool { return strings.Contains(quiet.log.String(), "alike again") })
	if text := bodyOf(t, quiet.admin+"/readyz"); strings.Contains(text, "differently") {
		t.Errorf("afterwards: %s", text)
	}
}
