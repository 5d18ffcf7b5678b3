package storetest

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/fleet"
	"github.com/lockwood-kms/lockwood/store"
)

func testInstances(t *testing.T, h Harness) {
	db, s := migrated(t, h, store.MigrateOptions{})
	age := func(id string, by time.Duration) {
		t.Helper()
		db.exec(t, "UPDATE "+db.Schema+"lockwood_instances SET last_seen = $1 WHERE id = $2", upstreamTime(time.Now().Add(-by)), id)
	}
	beat := func(i fleet.Instance) {
		t.Helper()
		if err := s.Beat(t.Context(), i); err != nil {
			t.Fatal(err)
		}
	}
	a := fleet.Instance{
		ID: "a", Hostname: "host", KEKIDs: []core.KEKID{"envkey:1", `odd","#2`}, State: "ready", ConfigHash: "00ff", Version: "1.2.3", WritesLegacy: true,
		StartedAt: time.Unix(1, 0), LastSeen: time.Unix(1, 0), // ignored
	}
	beat(a)
	beat(fleet.Instance{ID: "b", State: "missing"})
	list := instances(t, db.Open(t))
	if ids(list) != "a b" {
		t.Fatalf("the instances are %q, want them by start", ids(list))
	}
	first := list[0]
	if since := time.Since(first.LastSeen); !first.Live || since < -time.Minute || since > time.Minute || first.StartedAt.Location() != time.UTC {
		t.Errorf("the instance is %+v, want it live, with the database's time in UTC", first)
	}
	want := a
	want.StartedAt, want.LastSeen, want.Live = first.StartedAt, first.LastSeen, true
	if !reflect.DeepEqual(first, want) {
		t.Errorf("the instance is %+v, want %+v", first, want)
	}
	if list[1].WritesLegacy {
		t.Error("an instance that did not say so writes legacy records")
	}
	if len(list[1].KEKIDs) != 0 {
		t.Errorf("an instance without a key has the KEK IDs %q", list[1].KEKIDs)
	}

	// Not seen for longer than the window: no longer live, and last.
	age("a", fleet.LiveWindow+time.Second)
	if list = instances(t, s); ids(list) != "b a" || list[1].Live || !list[0].Live {
		t.Errorf("the instances are %+v, want b live and a not", list)
	}
	// Seen again: live, changed, started when it did.
	a.State, a.KEKIDs, a.WritesLegacy = "mismatch", nil, false
	beat(a)
	if list = instances(t, s); ids(list) != "a b" || !list[0].Live || list[0].State != "mismatch" || list[0].WritesLegacy || len(list[0].KEKIDs) != 0 || !list[0].StartedAt.Equal(first.StartedAt) {
		t.Errorf("the instances are %+v, want a changed and started as before", list)
	}
	// Not seen for a day: removed by anyone's beat, but one's own returns.
	age("a", 25*time.Hour)
	age("b", 25*time.Hour)
	beat(fleet.Instance{ID: "b", State: "ready"})
	if list = instances(t, s); ids(list) != "b" || !list[0].Live {
		t.Errorf("the instances are %+v, want b alone", list)
	}
	if err := s.Leave(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if list = instances(t, s); len(list) != 0 {
		t.Errorf("the instances are %+v, want none", list)
	}
}

func instances(t *testing.T, s store.Store) []fleet.Instance {
	t.Helper()
	list, err := s.Instances(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func ids(list []fleet.Instance) string {
	var all []string
	for _, i := range list {
		all = append(all, string(i.ID))
	}
	return strings.Join(all, " ")
}
