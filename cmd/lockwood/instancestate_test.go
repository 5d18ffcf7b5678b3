package main

import (
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// A command, which asks the key provider itself and may be answered, learns of the outage
// that an instance sees.
func TestAnInstanceTellsOfItsOutage(t *testing.T) {
	now := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	healthy := instanceState(&keyring.Status{State: "ready"}, now)
	bridging := instanceState(&keyring.Status{State: "ready", OutageSince: now.Add(-time.Hour), OutageBudgetLeft: 23 * time.Hour}, now)
	denied := instanceState(&keyring.Status{State: "denied", Err: core.ErrKeyDenied, OutageSince: now.Add(-time.Hour)}, now)
	if healthy != "ready" || denied != "denied" {
		t.Errorf("the states are %q and %q", healthy, denied)
	}
	if want := "ready, outage since 2026-05-04T02:02:01Z, data keys stay until 2026-05-05T02:02:01Z"; string(bridging) != want {
		t.Errorf("the state is %q, want %q", bridging, want)
	}
	s := keyStatus{Instances: []instanceStatus{
		{ID: "a", State: healthy, Live: true}, {ID: "b", Hostname: "host", State: bridging, Live: true}, {ID: "gone", State: bridging}, {ID: "c", State: denied, Live: true},
	}}
	if p := s.outages(); len(p) != 1 || !strings.Contains(p[0], "instance b on host") || !strings.Contains(p[0], "2026-05-05T02:02:01Z") {
		t.Errorf("the problems are %q", p)
	}
}
