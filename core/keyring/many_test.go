package keyring_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// What has to be done for every data key does not take as many times as long where
// there are many and the key service is slow.
func TestManyDataKeysAndASlowKMS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const keys, bound = 16, 1500 * time.Millisecond
		before, after, recovery, store := newKMS("before"), newKMS("after"), newKMS("recovery"), newStore()
		first := mustStart(t, before, store, keyring.Options{Recovery: []keyring.RecoveryKEK{keyring.NewRecoveryKEK(recovery)}})
		for range keys - 1 {
			if err := first.Roll(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		first.Close()
		slow := func(k *scriptedKMS) { k.delay = 100 * time.Millisecond }
		for _, k := range []*scriptedKMS{before, after, recovery} {
			k.script(slow)
		}
		r := mustStart(t, after, store, keyring.Options{Previous: []core.KeyProvider{before}, NoAutoRewrap: true, ReadOnly: true})
		timed := func(what string, f func() error) {
			t.Helper()
			began := time.Now()
			if err := f(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if took := time.Since(began); took > bound {
				t.Errorf("%s took %s", what, took)
			}
		}
		timed("looking for lost keys", func() error { _, err := r.Lost(t.Context()); return err })
		timed("examining", func() error { _, err := r.Examine(t.Context(), []core.KeyProvider{recovery}); return err })

		lost, _ := start(t, after, store, keyring.Options{NoAutoRewrap: true})
		timed("recovering", func() error {
			done, err := lost.Recover(t.Context(), []core.KeyProvider{recovery})
			if len(done) != keys {
				t.Errorf("%d recovered", len(done))
			}
			return err
		})
		w, _ := start(t, before, store, keyring.Options{Previous: []core.KeyProvider{after}, NoAutoRewrap: true})
		timed("rewrapping", func() error {
			added, err := w.Rewrap(t.Context())
			if len(added) != 1 { // of the fresh primary that recovery made
				t.Errorf("%d wraps added", len(added))
			}
			return err
		})
		timed("pruning", func() error {
			removed, err := w.Prune(t.Context(), func(core.KEKID) bool { return false })
			if len(removed) != 2*keys+1 {
				t.Errorf("%d wraps removed", len(removed))
			}
			return err
		})
		third := newKMS("third")
		third.script(slow)
		w, _ = start(t, third, store, keyring.Options{Previous: []core.KeyProvider{before}, NoAutoRewrap: true})
		timed("rewrapping all", func() error {
			added, err := w.Rewrap(t.Context())
			if len(added) != keys+1 {
				t.Errorf("%d wraps added", len(added))
			}
			return err
		})
	})
}
