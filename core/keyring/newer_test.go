package keyring_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// A data key that was recovered is known to exist also if its wrap under the current KEK
// could not be used: an older primary seals no more.
func TestANewerKeyThatWasOnlyRecovered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, lost, escrow := newKMS("a"), newKMS("lost"), newKMS("escrow")
		store, recovery := newStore(), []keyring.RecoveryKEK{keyring.NewRecoveryKEK(escrow)}
		old := keyIDOf(t, mustSeal(t, mustStart(t, kms, store, keyring.Options{}), "x"))
		other := mustStart(t, lost, store, keyring.Options{Previous: []core.KeyProvider{kms}, Recovery: recovery})
		if err := other.Roll(t.Context()); err != nil { // wrapped under lost and escrow only
			t.Fatal(err)
		}
		other.Close()
		store.enthrone(old, 0)
		r := mustStart(t, kms, store, keyring.Options{PollInterval: time.Hour, Recovery: recovery})
		kms.script(func(k *scriptedKMS) { k.wrapsUnder = "2" })
		if done, err := r.Recover(t.Context(), []core.KeyProvider{escrow}); err != nil || len(done) != 1 || done[0].Err == nil {
			t.Fatalf("Recover = %+v, %v; want one that was wrapped under another version than the provider names", done, err)
		}
		sealsUnderNone(t, r, old)
	})
}

// losesAnswers is a store that does what it is asked to insert, and is not heard of then.
type losesAnswers struct {
	*memoryStore
	silent atomic.Bool
}

func (s *losesAnswers) InsertDataKey(ctx context.Context, k keyring.NewDataKey) error {
	if err := s.memoryStore.InsertDataKey(ctx, k); err != nil || !s.silent.Load() {
		return err
	}
	return core.ErrOutcomeUnknown
}

// A ring knows a data key that it made itself once the store shows it, also if it never
// heard that it was inserted: an older one seals no more.
func TestANewerKeyWhoseInsertionWasNotAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), &losesAnswers{memoryStore: newStore()}
		r := mustStart(t, kms, store, keyring.Options{})
		old := keyIDOf(t, mustSeal(t, r, "x"))
		store.silent.Store(true)
		if err := r.Roll(t.Context()); !errors.Is(err, core.ErrOutcomeUnknown) {
			t.Fatalf("Roll = %v", err)
		}
		store.silent.Store(false)
		store.enthrone(old, 0)
		pass(poll)
		sealsUnderNone(t, r, old)
		mustSeal(t, r, "x")
	})
}
