package keyring_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// rolled is a store whose ring has rolled once, so that it has two data keys.
func rolled(t *testing.T, kms *scriptedKMS, recovery ...keyring.RecoveryKEK) (store *memoryStore, first, second envelope.KeyID) {
	t.Helper()
	store = newStore()
	ring := mustStart(t, kms, store, keyring.Options{PollInterval: time.Hour, Recovery: recovery})
	if err := ring.Roll(t.Context()); err != nil {
		t.Fatal(err)
	}
	keys := store.snapshot().DataKeys
	return store, keys[0].ID, keys[1].ID
}

// What a ring that only looks says of rewrapping and pruning is what a ring that
// works then does.
func TestWhatIsLackingAndPrunable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, r := newKMS("a"), newKMS("b"), newKMS("r")
		store, first, second := rolled(t, a, keyring.NewRecoveryKEK(r))
		r.script(func(k *scriptedKMS) { k.version = "2" }) // the recovery KEK rotates too
		opts := keyring.Options{
			Previous: []core.KeyProvider{a}, Recovery: []keyring.RecoveryKEK{keyring.NewRecoveryKEK(r)}, ReadOnly: true,
		}
		looking := mustStart(t, b, store, opts)
		lacking := []keyring.WrapID{{DataKey: first, KEKID: "scripted:b#1"}, {DataKey: first, KEKID: "scripted:r#2"}, {DataKey: second, KEKID: "scripted:b#1"}, {DataKey: second, KEKID: "scripted:r#2"}}
		if got := looking.MissingWraps(); !slices.Equal(got, lacking) {
			t.Errorf("Lacking = %v", got)
		}
		if got := looking.Prunable(keepNone, false); len(got) != 0 {
			t.Errorf("before a rewrap, Prunable = %v", got)
		}
		older := []keyring.WrapID{{DataKey: first, KEKID: "scripted:a#1"}, {DataKey: first, KEKID: "scripted:r#1"}, {DataKey: second, KEKID: "scripted:a#1"}, {DataKey: second, KEKID: "scripted:r#1"}}
		if got := looking.Prunable(keepNone, true); !slices.Equal(got, older) {
			t.Errorf("as if rewrapped, Prunable = %v", got)
		}
		keepA := func(id core.KEKID) bool { return id == a.kekID() }
		if got := looking.Prunable(keepA, true); len(got) != 2 || got[0].KEKID != "scripted:r#1" {
			t.Errorf("as if rewrapped, with a kept, Prunable = %v", got)
		}

		opts.ReadOnly, opts.NoAutoRewrap = false, true
		working, _ := start(t, b, store, opts)
		if added, err := working.Rewrap(t.Context()); err != nil || len(added) != len(lacking) {
			t.Fatalf("Rewrap = %v, %v", added, err)
		}
		if got := working.MissingWraps(); len(got) != 0 {
			t.Errorf("after a rewrap, Lacking = %v", got)
		}
		if got := working.Prunable(keepNone, false); !slices.Equal(got, older) {
			t.Errorf("after a rewrap, Prunable = %v", got)
		}
	})
}

// What no configured provider unwraps is lost; that one does not answer is not, nor that
// one denies, which may be permitted again.
func TestLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newKMS("a"), newKMS("b")
		store, first, second := rolled(t, a)
		writes := func() int {
			return store.count("insert") + store.count("wrap") + store.count("remove") + store.count("reserve")
		}
		before := writes()
		look := func(previous ...core.KeyProvider) *keyring.Ring {
			ring, _ := start(t, b, store, keyring.Options{Previous: previous, ReadOnly: true})
			return ring
		}
		both := []envelope.KeyID{first, second}
		if lost, err := look().Lost(t.Context()); err != nil || !slices.Equal(lost, both) {
			t.Errorf("Lost = %v, %v", lost, err)
		}
		withA := look(a)
		if lost, err := withA.Lost(t.Context()); err != nil || len(lost) != 0 {
			t.Errorf("with a previous KEK that unwraps, Lost = %v, %v", lost, err)
		}
		a.script(func(k *scriptedKMS) { k.unwraps = core.ErrUnavailable })
		if lost, err := withA.Lost(t.Context()); !errors.Is(err, core.ErrUnavailable) {
			t.Errorf("with a previous KEK that is silent, Lost = %v, %v", lost, err)
		}
		a.script(func(k *scriptedKMS) { k.unwraps = core.ErrKeyDenied })
		if lost, err := withA.Lost(t.Context()); !errors.Is(err, core.ErrKeyDenied) || len(lost) != 0 {
			t.Errorf("with a previous KEK that denies, Lost = %v, %v", lost, err)
		}
		b.fail(core.ErrUnavailable)
		if lost, err := look().Lost(t.Context()); !errors.Is(err, core.ErrUnavailable) {
			t.Errorf("with a current KEK that is silent, Lost = %v, %v", lost, err)
		}
		if n := writes() - before; n != 0 {
			t.Errorf("Lost wrote %d times", n)
		}
	})
}

// An exposed data key is not rewrapped, so it keeps its wraps, and nothing is lacking
// or prunable for a current KEK that was named compromised.
func TestWhatIsLackingAndPrunableOfACompromisedKEK(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newKMS("a"), newKMS("b")
		store, _, _ := rolled(t, a)
		store.compromise(a)
		onlyB := mustStart(t, b, store, keyring.Options{Previous: []core.KeyProvider{a}, ReadOnly: true})
		onlyA, _ := start(t, a, store, keyring.Options{Previous: []core.KeyProvider{b}, ReadOnly: true})
		for _, ring := range []*keyring.Ring{onlyB, onlyA} {
			if lacking, prunable := ring.MissingWraps(), ring.Prunable(keepNone, true); len(lacking)+len(prunable) != 0 {
				t.Errorf("Lacking = %v, Prunable = %v", lacking, prunable)
			}
		}
	})
}
