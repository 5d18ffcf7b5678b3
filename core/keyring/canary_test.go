package keyring_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// The wrap of the primary is unwrapped again within the hour also if it is under an older
// version of the current KEK, as after a rotation in the key service where rewrapping is
// left to the operator.
func TestAWrapUnderAnOlderVersionIsProvenToo(t *testing.T) {
	for name, breaks := range map[string]func(*scriptedKMS){
		"denied":    func(k *scriptedKMS) { k.unwraps = core.ErrKeyDenied },
		"made anew": func(k *scriptedKMS) { k.aead = newKMS("a").aead },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kms, store := newKMS("a"), newStore()
				mustStart(t, kms, store, keyring.Options{NoAutoRewrap: true})
				kms.script(func(k *scriptedKMS) { k.version = "2" })
				r := mustStart(t, kms, store, keyring.Options{NoAutoRewrap: true})
				pass(time.Minute)
				mustSeal(t, r, "x")
				kms.script(breaks)
				pass(time.Hour + 2*keyring.DefaultStatusInterval)
				if _, err := r.Seal(t.Context(), nil, []byte("x"), []byte("aad")); !errors.Is(err, core.ErrKeyDenied) && !errors.Is(err, core.ErrKeyMismatch) {
					t.Errorf("Seal = %v", err)
				}
				if n := r.Status().Unlocked; name == "denied" && n > 0 {
					t.Errorf("%d data keys are in memory", n)
				}
			})
		})
	}
}

// A right that is withdrawn is noticed within the hour also by an instance that has not
// seen the wrap which the store holds by now: another instance wrote it, or an attacker.
func TestAWithdrawnRightAndAWrapThatWasReplaced(t *testing.T) {
	for name, replacement := range map[string]func(*scriptedKMS, core.WrappedKey) core.WrappedKey{
		"by another instance": func(k *scriptedKMS, w core.WrappedKey) core.WrappedKey {
			aad := core.WrapAAD("store-1", "1")
			plaintext, err := k.UnwrapDataKey(t.Context(), w, aad)
			if err != nil {
				t.Error(err)
			}
			return k.seal(plaintext, aad)
		},
		"by an attacker": func(_ *scriptedKMS, w core.WrappedKey) core.WrappedKey {
			return core.WrappedKey{KEKID: w.KEKID, Wrapped: make([]byte, len(w.Wrapped))}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kms, store := newKMS("a"), newStore()
				r := mustStart(t, kms, store, keyring.Options{})
				mustSeal(t, r, "x")
				pass(time.Minute)
				w := store.primary().Wraps[0]
				store.edit(func(s *memoryStore) { s.state.DataKeys[0].Wraps[0] = replacement(kms, w) })
				pass(time.Minute)
				kms.script(func(k *scriptedKMS) { k.unwraps = core.ErrKeyDenied })
				pass(time.Hour + 2*keyring.DefaultStatusInterval)
				if n := r.Status().Unlocked; n > 0 {
					t.Errorf("%d data keys are in memory", n)
				}
			})
		})
	}
}
