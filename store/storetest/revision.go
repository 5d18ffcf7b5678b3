package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/store"
)

func revision(t *testing.T, s store.Store) string {
	t.Helper()
	r, err := s.Revision(t.Context())
	if err != nil || r == "" {
		t.Fatalf("the revision is %q, %v", r, err)
	}
	return r
}

// testRevision sees the revision change with whatever LoadRing returns, and with nothing
// else.
func testRevision(t *testing.T, h Harness) {
	t.Run("changes with the ring", func(t *testing.T) { revisionChanges(t, h) })
	t.Run("stands for one state", func(t *testing.T) { revisionOfOneState(t, h) })
}

func revisionChanges(t *testing.T, h Harness) {
	db, s := migrated(t, h, store.MigrateOptions{WriteLegacy: true})
	var first, second envelope.KeyID
	steps := []struct {
		name    string
		changes bool
		do      func() error
	}{
		{"a data key", true, func() error { first = insertKey(t, s, 1, envelope.KeyID{}); return nil }},
		{"another", true, func() error { second = insertKey(t, s, 2, first); return nil }},
		{"a wrap", true, func() error {
			return s.AddWrap(t.Context(), first, core.WrappedKey{KEKID: "test:other#1", Wrapped: []byte("wrap")})
		}},
		{"a wrap in place of one", true, func() error {
			return s.AddWrap(t.Context(), first, core.WrappedKey{KEKID: "test:other#1", Wrapped: []byte("another")})
		}},
		{"a wrap less", true, func() error { return s.RemoveWraps(t.Context(), first, []core.KEKID{"test:other#1"}) }},
		{"seals", true, func() error { _, err := s.ReserveSeals(t.Context(), second, 10, 100); return err }},
		{"a compromised key", true, func() error { return s.NameCompromised(t.Context(), []string{"test:other"}) }},
		{"a deposit", false, func() error { deposit(t, s, 1, "server", second); return nil }},
		{"a report", false, func() error { return s.SaveReport(t.Context(), []byte(`{}`)) }},
		{"a load", false, func() error { loadRing(t, s); return nil }},
		{"a data key that is destroyed", true, func() error { _, err := s.DestroyDataKey(t.Context(), first); return err }},
		{"legacy closed", true, func() error { _, err := s.CloseLegacy(t.Context()); return err }},
		{"legacy opened", true, func() error { return s.OpenLegacy(t.Context()) }},
	}
	seen := []string{revision(t, s)}
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		now := revision(t, db.Open(t))
		if last := seen[len(seen)-1]; (now != last) != step.changes {
			t.Errorf("%s: the revision was %s, and is %s", step.name, last, now)
		} else if step.changes && slices.Contains(seen, now) {
			t.Errorf("%s: the revision %s was there before", step.name, now)
		}
		if loaded := loadRing(t, s).Revision; loaded != now {
			t.Errorf("%s: LoadRing returns revision %s, want %s", step.name, loaded, now)
		}
		seen = append(seen, now)
	}
}

// revisionOfOneState changes the ring by several instances at once, and loads it all the
// while: two loads of one revision show the same.
func revisionOfOneState(t *testing.T, h Harness) {
	db, s, first := withKey(t, h)
	second := insertKey(t, s, 2, first)
	var mu sync.Mutex
	states := make(map[string]string)
	_, failed := race(6, func(i int) error {
		instance := db.Open(t)
		for n := range 20 {
			var err error
			switch i % 3 {
			case 0:
				_, err = instance.ReserveSeals(t.Context(), first, 1, 1000)
			case 1:
				_, err = instance.ReserveSeals(t.Context(), second, 1, 1000)
			default:
				err = instance.NameCompromised(t.Context(), []string{fmt.Sprintf("key:%d-%d", i, n)})
			}
			if err != nil {
				return err
			}
			state, err := instance.LoadRing(t.Context())
			if err != nil {
				return err
			}
			text := fmt.Sprint(state.Compromised, state.DataKeys[0].SealsReserved, state.DataKeys[1].SealsReserved)
			mu.Lock()
			if was, ok := states[state.Revision]; ok && was != text {
				err = fmt.Errorf("revision %s is of %s and of %s", state.Revision, was, text)
			}
			states[state.Revision] = text
			mu.Unlock()
			if err != nil {
				return err
			}
		}
		return nil
	})
	if len(failed) != 0 {
		t.Error(failed)
	}
}

// testDestroyUnused destroys several data keys together, of which some may not be.
func testDestroyUnused(t *testing.T, h Harness) {
	db, s, first := withKey(t, h)
	ids := []envelope.KeyID{first}
	for version := range int64(5) {
		ids = append(ids, insertKey(t, s, version+2, ids[version]))
	}
	gone, used, hidden, disposable, unused, primary := ids[0], ids[1], ids[2], ids[3], ids[4], ids[5]
	if _, err := s.DestroyDataKey(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	deposit(t, s, 3, "server", used)
	both := row(2, "server", sealed(primary))
	both.ClientSecretEnc = sealed(hidden)
	if err := s.Upsert(t.Context(), both, primary, 0); err != nil {
		t.Fatal(err)
	}
	token := deposit(t, s, 1, "server", primary)
	if w, err := s.WriteOutcome(t.Context(), lease(t, s, token, "a"), &access.Outcome{AccessToken: sealed(disposable)}); w != protocol.Stored || err != nil {
		t.Fatal(w, err)
	}
	destroyed, err := s.DestroyUnused(t.Context(), append(ids, envelope.KeyID{1}))
	slices.SortFunc(destroyed, func(a, b envelope.KeyID) int { return slices.Index(ids, a) - slices.Index(ids, b) })
	if want := []envelope.KeyID{disposable, unused}; err != nil || !slices.Equal(destroyed, want) {
		t.Fatalf("destroyed %v, %v; want %v", destroyed, err, want)
	}
	for i, k := range loadRing(t, db.Open(t)).DataKeys {
		enabled := i == 1 || i == 2 || i == 5
		if (k.State == keyring.Enabled) != enabled || (len(k.Wraps) > 0) != enabled || k.DestroyedAt.IsZero() != enabled {
			t.Errorf("data key %d is %+v", i, k)
		}
	}
	if n := db.number(t, "SELECT count(*) FROM "+db.Schema+"lockwood_access_tokens WHERE access_token_enc IS NOT NULL"); n != 0 {
		t.Errorf("%d access tokens are left under a data key that is destroyed", n)
	}
	if destroyed, err := s.DestroyUnused(t.Context(), nil); err != nil || len(destroyed) != 0 {
		t.Errorf("of none: %v, %v", destroyed, err)
	}
	if _, err := s.DestroyDataKey(t.Context(), unused); !errors.Is(err, keyring.ErrNotEnabled) {
		t.Errorf("destroying it again: %v", err)
	}
}

// testDestroyUnusedExcludes destroys a data key while somebody deposits under it.
func testDestroyUnusedExcludes(t *testing.T, h Harness) {
	db, s, key := withKey(t, h)
	other := db.Open(t)
	for round := range 20 {
		next := insertKey(t, s, int64(round+2), key)
		var destroyed []envelope.KeyID
		var destroying, writing error
		var both sync.WaitGroup
		both.Go(func() { destroyed, destroying = other.DestroyUnused(t.Context(), []envelope.KeyID{key}) })
		both.Go(func() { writing = s.Upsert(t.Context(), row(1, "server", sealed(key)), key, 0) })
		both.Wait()
		if destroying != nil || len(destroyed) == 1 && !errors.Is(writing, keyring.ErrNotEnabled) || len(destroyed) == 0 && writing != nil {
			t.Fatalf("destroyed %v, %v; written: %v", destroyed, destroying, writing)
		}
		deposit(t, s, 1, "server", next)
		key = next
	}
}
