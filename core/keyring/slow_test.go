package keyring_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// A recovered data key opens also with a key service that takes more than half of the time
// that a call may take: what its wrap is not bound to is asked once.
func TestASlowKMSAndARecoveredKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, lost, escrow := newKMS("a"), newKMS("lost"), newKMS("escrow")
		store, recovery := newStore(), []keyring.RecoveryKEK{keyring.NewRecoveryKEK(escrow)}
		record := mustSeal(t, mustStart(t, lost, store, keyring.Options{Recovery: recovery}), "token")
		command, _ := start(t, kms, store, keyring.Options{})
		if done, err := command.Recover(t.Context(), []core.KeyProvider{escrow}); err != nil || len(done) != 1 || done[0].Err != nil {
			t.Fatalf("Recover = %+v, %v", done, err)
		}
		r := mustStart(t, kms, store, keyring.Options{})
		kms.script(func(k *scriptedKMS) { k.delay = keyring.DefaultCallTimeout * 2 / 3 })
		for range 3 {
			_, _, _ = r.Open(t.Context(), nil, record, []byte("aad"))
			pass(time.Minute)
		}
		mustOpen(t, r, record, "token", true)
	})
}

// A wrap that does not unwrap is tried once an hour, whatever else the provider takes
// long for.
func TestASlowKMSAndAWrapThatDoesNotUnwrap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		record := mustSeal(t, mustStart(t, kms, store, keyring.Options{}), "token")
		store.edit(func(s *memoryStore) {
			s.state.DataKeys = append(s.state.DataKeys, keyring.DataKeyState{
				ID: keyIDOf(t, forge(t, record, [16]byte{1})), Version: 9, State: keyring.Enabled, Wraps: []core.WrappedKey{{KEKID: kms.kekID(), Wrapped: make([]byte, 60)}},
			})
		})
		r := mustStart(t, kms, store, keyring.Options{PollInterval: time.Hour, StatusInterval: 24 * time.Hour})
		kms.script(func(k *scriptedKMS) { k.delay = keyring.DefaultCallTimeout * 2 / 3 })
		before := kms.count("unwrap")
		for range 20 {
			_, _, _ = r.Open(t.Context(), nil, forge(t, record, [16]byte{1}), []byte("aad"))
			pass(time.Minute)
		}
		if n := kms.count("unwrap") - before; n > 4 {
			t.Errorf("%d calls", n)
		}
	})
}
