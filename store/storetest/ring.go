package storetest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/store"
)

func testRing(t *testing.T, h Harness) {
	t.Run("a data key comes back as it was inserted", func(t *testing.T) {
		db, s := migrated(t, h, store.MigrateOptions{})
		k := newKey(1, envelope.KeyID{})
		k.Wraps = append(k.Wraps, core.WrappedKey{KEKID: "other:key", Wrapped: bytes.Repeat([]byte{0, 0xff}, 8<<10)})
		if err := s.InsertDataKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		state := loadRing(t, db.Open(t))
		if len(state.DataKeys) != 1 {
			t.Fatalf("the ring has %d data keys, want 1", len(state.DataKeys))
		}
		got := state.DataKeys[0]
		if got.ID != k.ID || got.Version != 1 || got.State != keyring.Enabled || !got.Primary || got.SealsReserved != 0 || !got.DestroyedAt.IsZero() {
			t.Errorf("the data key is %+v", got)
		}
		if age := time.Since(got.CreatedAt); age < -time.Minute || age > time.Minute {
			t.Errorf("it was made %v ago", age)
		}
		sameWraps(t, got.Wraps, k.Wraps)
	})

	t.Run("a further data key takes over as primary", func(t *testing.T) {
		_, s, first := withKey(t, h)
		second := insertKey(t, s, 2, first)
		state := loadRing(t, s)
		if len(state.DataKeys) != 2 || state.DataKeys[0].ID != first || state.DataKeys[1].ID != second {
			t.Fatalf("the ring is %+v, want both keys by version", state)
		}
		if state.DataKeys[0].Primary || state.DataKeys[0].State != keyring.Enabled || state.Primary().ID != second {
			t.Errorf("the ring is %+v, want the first enabled and the second primary", state)
		}
	})

	t.Run("a data key that does not fit is a conflict and changes nothing", func(t *testing.T) {
		_, s, first := withKey(t, h)
		second := insertKey(t, s, 2, first)
		before := loadRing(t, s)
		for name, k := range map[string]keyring.NewDataKey{
			"replaces nothing":            newKey(3, envelope.KeyID{}),
			"replaces a former primary":   newKey(3, first),
			"replaces an unknown key":     newKey(3, envelope.KeyID{1}),
			"has a version that exists":   newKey(2, second),
			"has a version that was used": newKey(1, second),
			"has an ID that exists":       {ID: first, Version: 3, Replaces: second, Wraps: newKey(0, second).Wraps},
		} {
			if err := s.InsertDataKey(t.Context(), k); !errors.Is(err, keyring.ErrConflict) {
				t.Errorf("%s: %v, want keyring.ErrConflict", name, err)
			}
		}
		after := loadRing(t, s)
		if len(after.DataKeys) != len(before.DataKeys) || after.Primary() == nil || after.Primary().ID != second {
			t.Errorf("the ring is %+v, and was %+v", after, before)
		}
	})

	t.Run("of ten instances that insert the first data key one succeeds", func(t *testing.T) {
		db, s := migrated(t, h, store.MigrateOptions{})
		won, lost := race(10, func(int) error {
			instance := db.Open(t)
			return instance.InsertDataKey(t.Context(), newKey(1, envelope.KeyID{}))
		})
		for _, err := range lost {
			if !errors.Is(err, keyring.ErrConflict) {
				t.Errorf("another gets %v, want keyring.ErrConflict", err)
			}
		}
		if state := loadRing(t, s); won != 1 || len(state.DataKeys) != 1 || len(state.DataKeys[0].Wraps) != 1 {
			t.Errorf("%d succeeded, and the ring is %+v", won, state)
		}
	})

	t.Run("a wrap replaces the one under the same KEK ID and no other", func(t *testing.T) {
		_, s, key := withKey(t, h)
		first := loadRing(t, s).DataKeys[0].Wraps[0]
		added := core.WrappedKey{KEKID: "test:key#2", Wrapped: randomBytes(60)}
		replaced := core.WrappedKey{KEKID: "test:key#2", Wrapped: randomBytes(61)}
		for _, w := range []core.WrappedKey{added, replaced} {
			if err := s.AddWrap(t.Context(), key, w); err != nil {
				t.Fatal(err)
			}
		}
		sameWraps(t, loadRing(t, s).DataKeys[0].Wraps, []core.WrappedKey{first, replaced})
		if err := s.AddWrap(t.Context(), envelope.KeyID{1}, added); !errors.Is(err, keyring.ErrNotEnabled) {
			t.Errorf("for an unknown key: %v, want keyring.ErrNotEnabled", err)
		}
	})

	t.Run("wraps are removed under exactly the KEK IDs, but never the last", func(t *testing.T) {
		_, s, key := withKey(t, h)
		first := loadRing(t, s).DataKeys[0].Wraps[0]
		another := insertKey(t, s, 2, key)
		kept := core.WrappedKey{KEKID: "test:key#2", Wrapped: randomBytes(60)}
		for _, w := range []core.WrappedKey{kept, {KEKID: "other:key", Wrapped: randomBytes(60)}} {
			if err := s.AddWrap(t.Context(), key, w); err != nil {
				t.Fatal(err)
			}
		}
		remove := func(id envelope.KeyID, kekIDs ...core.KEKID) error { return s.RemoveWraps(t.Context(), id, kekIDs) }
		if err := errors.Join(remove(key), remove(key, "other:key", "not there"), remove(key, "other:key")); err != nil {
			t.Fatal(err)
		}
		sameWraps(t, loadRing(t, s).DataKeys[0].Wraps, []core.WrappedKey{first, kept})
		if err := remove(key, first.KEKID, kept.KEKID); !errors.Is(err, keyring.ErrConflict) {
			t.Errorf("all of them: %v, want keyring.ErrConflict", err)
		}
		sameWraps(t, loadRing(t, s).DataKeys[0].Wraps, []core.WrappedKey{first, kept})
		if err := remove(key, first.KEKID); err != nil {
			t.Fatal(err)
		}
		sameWraps(t, loadRing(t, s).DataKeys[0].Wraps, []core.WrappedKey{kept})
		if got := loadRing(t, s).DataKeys[1]; got.ID != another || len(got.Wraps) != 1 {
			t.Errorf("the other key is %+v, want it with its wrap", got)
		}
		if _, err := s.DestroyDataKey(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		for name, id := range map[string]envelope.KeyID{"destroyed": key, "unknown": {1}} {
			if err := remove(id, "x"); !errors.Is(err, keyring.ErrNotEnabled) {
				t.Errorf("%s: %v, want keyring.ErrNotEnabled", name, err)
			}
		}
	})

	t.Run("two who each remove a wrap leave one", func(t *testing.T) {
		db, s, key := withKey(t, h)
		instances := []store.Store{s, db.Open(t)}
		wraps := []core.KEKID{"test:key#1", "test:key#2"}
		for range 10 {
			for _, w := range wraps {
				if err := s.AddWrap(t.Context(), key, core.WrappedKey{KEKID: w, Wrapped: []byte{1}}); err != nil {
					t.Fatal(err)
				}
			}
			won, lost := race(2, func(i int) error { return instances[i].RemoveWraps(t.Context(), key, wraps[i:i+1]) })
			if won != 1 || !errors.Is(lost[0], keyring.ErrConflict) {
				t.Fatalf("%d succeeded, %v; want one, and keyring.ErrConflict", won, lost)
			}
		}
	})
}

func testCompromised(t *testing.T, h Harness) {
	db, s, _ := withKey(t, h)
	if got := loadRing(t, s).Compromised; len(got) != 0 {
		t.Errorf("at first there are %q", got)
	}
	_, lost := race(8, func(i int) error {
		keys := []string{"b:key", `odd","#`, "a:key", "B:key", "a:key"}
		if i%2 == 1 {
			slices.Reverse(keys)
		}
		return s.NameCompromised(t.Context(), keys)
	})
	if len(lost) != 0 {
		t.Fatal(lost)
	}
	if err := errors.Join(s.NameCompromised(t.Context(), nil), s.NameCompromised(t.Context(), []string{"c:key"})); err != nil {
		t.Fatal(err)
	}
	state := loadRing(t, db.Open(t))
	if want := []string{"B:key", "a:key", "b:key", "c:key", `odd","#`}; !slices.Equal(state.Compromised, want) {
		t.Errorf("compromised are %q, want %q", state.Compromised, want)
	}
	if len(state.DataKeys) != 1 {
		t.Errorf("the ring has %d data keys, want its 1", len(state.DataKeys))
	}
}

func testSeals(t *testing.T, h Harness) {
	t.Run("are taken up to the limit", func(t *testing.T) {
		_, s, key := withKey(t, h)
		for i, step := range []struct {
			n, limit int64
			ok       bool
		}{
			{60, 100, true}, {41, 100, false}, {40, 100, true}, {1, 100, false}, {1, 101, true},
			{1 << 62, envelope.MaxSeals, false}, {1 << 62, 1 << 62, false},
		} {
			if ok, err := s.ReserveSeals(t.Context(), key, step.n, step.limit); err != nil || ok != step.ok {
				t.Errorf("step %d: %v, %v; want %v", i, ok, err, step.ok)
			}
		}
		if n := loadRing(t, s).DataKeys[0].SealsReserved; n != 101 {
			t.Errorf("%d are reserved, want 101", n)
		}
	})

	t.Run("are not to be had of a key that is not enabled", func(t *testing.T) {
		_, s, first := withKey(t, h)
		insertKey(t, s, 2, first)
		if _, err := s.DestroyDataKey(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		for name, id := range map[string]envelope.KeyID{"destroyed": first, "unknown": {1}} {
			if ok, err := s.ReserveSeals(t.Context(), id, 1, 100); ok || !errors.Is(err, keyring.ErrNotEnabled) {
				t.Errorf("%s: %v, %v; want keyring.ErrNotEnabled", name, ok, err)
			}
		}
	})

	t.Run("are never more than the limit over all instances", func(t *testing.T) {
		db, s, key := withKey(t, h)
		other := db.Open(t)
		var taken atomic.Int64
		_, failed := race(8, func(i int) error {
			instance := s
			if i%2 == 1 {
				instance = other
			}
			for {
				ok, err := instance.ReserveSeals(t.Context(), key, 7, 500)
				if err != nil || !ok {
					return err
				}
				taken.Add(7)
			}
		})
		if len(failed) != 0 {
			t.Fatal(failed)
		}
		if n := loadRing(t, s).DataKeys[0].SealsReserved; n != 497 || taken.Load() != n {
			t.Errorf("%d are reserved and %d were given out, want 497 both", n, taken.Load())
		}
	})
}

func testDestroy(t *testing.T, h Harness) {
	t.Run("is refused while records remain, in either column", func(t *testing.T) {
		_, s, first := withKey(t, h)
		both := row(1, "both", sealed(first))
		both.ClientSecretEnc = sealed(first)
		if err := s.Upsert(t.Context(), both, first, 0); err != nil {
			t.Fatal(err)
		}
		deposit(t, s, 2, "server", first)
		second := insertKey(t, s, 2, first)
		deposit(t, s, 3, "server", second)

		if n, err := s.DestroyDataKey(t.Context(), first); n != 3 || !errors.Is(err, keyring.ErrInUse) {
			t.Errorf("got %d, %v; want 3 remaining and keyring.ErrInUse", n, err)
		}
		state := loadRing(t, s)
		if state.DataKeys[0].State != keyring.Enabled || len(state.DataKeys[0].Wraps) != 1 {
			t.Errorf("the key is %+v, want it untouched", state.DataKeys[0])
		}
	})

	t.Run("removes the wraps and keeps the rest", func(t *testing.T) {
		db, s, first := withKey(t, h)
		deposit(t, s, 1, "server", first)
		second := insertKey(t, s, 2, first)
		deposit(t, s, 1, "server", second)
		if n, err := s.DestroyDataKey(t.Context(), first); n != 0 || err != nil {
			t.Fatalf("got %d, %v", n, err)
		}
		gone := loadRing(t, db.Open(t)).DataKeys[0]
		if gone.ID != first || gone.State != keyring.Destroyed || gone.Primary || len(gone.Wraps) != 0 || time.Since(gone.DestroyedAt) > time.Minute {
			t.Errorf("the key is %+v", gone)
		}
		if n := db.number(t, "SELECT count(*) FROM "+db.Schema+"lockwood_data_key_wraps"); n != 1 {
			t.Errorf("%d wraps are left, want that of the primary", n)
		}
		if err := s.AddWrap(t.Context(), first, core.WrappedKey{KEKID: "k", Wrapped: []byte{1}}); !errors.Is(err, keyring.ErrNotEnabled) {
			t.Errorf("adding a wrap: %v, want keyring.ErrNotEnabled", err)
		}
	})

	t.Run("is refused for the primary, and for what is not enabled", func(t *testing.T) {
		_, s, first := withKey(t, h)
		if _, err := s.DestroyDataKey(t.Context(), first); !errors.Is(err, keyring.ErrConflict) {
			t.Errorf("the primary: %v, want keyring.ErrConflict", err)
		}
		insertKey(t, s, 2, first)
		if _, err := s.DestroyDataKey(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		for name, id := range map[string]envelope.KeyID{"destroyed": first, "unknown": {1}} {
			if _, err := s.DestroyDataKey(t.Context(), id); !errors.Is(err, keyring.ErrNotEnabled) {
				t.Errorf("%s: %v, want keyring.ErrNotEnabled", name, err)
			}
		}
	})
}

// The schema itself refuses what must never happen, whoever tries.
func testGuards(t *testing.T, h Harness) {
	db, s, first := withKey(t, h)
	second := insertKey(t, s, 2, first)
	insertKey(t, s, 3, second)
	if _, err := s.DestroyDataKey(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReserveSeals(t.Context(), second, 10, 100); err != nil {
		t.Fatal(err)
	}
	keys, wraps, one := db.Schema+"lockwood_data_keys", db.Schema+"lockwood_data_key_wraps", db.Schema+"lockwood_store"
	for name, query := range map[string]string{
		"a destroyed key comes back":   "UPDATE " + keys + " SET state = 'enabled', destroyed_at = NULL WHERE version = 1",
		"a version changes":            "UPDATE " + keys + " SET version = 9 WHERE version = 2",
		"a key ID changes":             "UPDATE " + keys + " SET key_id = $1 WHERE version = 2",
		"reserved seals are given up":  "UPDATE " + keys + " SET seals_reserved = 9 WHERE version = 2",
		"a second primary":             "UPDATE " + keys + " SET is_primary = (1 = 1) WHERE version = 2",
		"a destroyed primary":          "UPDATE " + keys + " SET is_primary = (1 = 1) WHERE version = 1",
		"an unknown state":             "UPDATE " + keys + " SET state = 'lost' WHERE version = 2",
		"destroyed without a time":     "UPDATE " + keys + " SET state = 'destroyed' WHERE version = 2",
		"a data key is deleted":        "DELETE FROM " + keys + " WHERE version = 1",
		"a key with wraps is deleted":  "DELETE FROM " + keys + " WHERE version = 2",
		"a wrap of no key":             "UPDATE " + wraps + " SET key_id = $1",
		"a wrap without bytes":         "UPDATE " + wraps + " SET kek_id = ''",
		"the store ID changes":         "UPDATE " + one + " SET store_id = 'another'",
		"the row of the store goes":    "DELETE FROM " + one,
		"legacy in an unknown setting": "UPDATE " + one + " SET legacy = 'ajar'",
	} {
		var args []any
		if bytes.Contains([]byte(query), []byte("$1")) {
			args = []any{randomBytes(envelope.KeyIDSize)}
		}
		if err := db.try(query, args...); err == nil {
			t.Errorf("%s: the schema lets it happen", name)
		}
	}
}

// race runs f n times at once, and returns how many succeeded and the errors of
// the others.
func race(n int, f func(i int) error) (won int, lost []error) {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = f(i) })
	}
	all.Wait()
	for _, err := range errs {
		if err == nil {
			won++
		} else {
			lost = append(lost, err)
		}
	}
	return won, lost
}

func sameWraps(t *testing.T, got, want []core.WrappedKey) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("there are %d wraps, want %d", len(got), len(want))
	}
	byKEK := make(map[core.KEKID][]byte)
	for _, w := range got {
		byKEK[w.KEKID] = w.Wrapped
	}
	for _, w := range want {
		sameBytes(t, "the wrap under "+string(w.KEKID), byKEK[w.KEKID], w.Wrapped)
	}
}

func cancelled(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
