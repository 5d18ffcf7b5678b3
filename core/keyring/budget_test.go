package keyring_test

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

func TestTheSealBudgetHoldsAcrossInstancesAndCrashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		opts := keyring.Options{MaxSeals: 160, SealBlock: 10}
		sealed := map[envelope.KeyID]int{}
		rings := []*keyring.Ring{mustStart(t, kms, store, opts), mustStart(t, kms, store, opts)}
		for i := range 1000 {
			if i%37 == 0 { // a crash: what was reserved is lost
				rings[i%2].Close()
				rings[i%2] = mustStart(t, kms, store, opts)
			}
			sealed[keyIDOf(t, mustSeal(t, rings[i%2], "x"))]++
			if i%50 == 0 {
				pass(2 * time.Second)
			}
		}
		for id, n := range sealed {
			if n > 160 {
				t.Errorf("%d records under data key %s, more than its budget", n, id)
			}
		}
		for _, k := range store.snapshot().DataKeys {
			if k.SealsReserved > 160 {
				t.Errorf("%d seals reserved under version %d", k.SealsReserved, k.Version)
			}
		}
		if len(sealed) < 7 {
			t.Errorf("the ring rolled only %d times", len(sealed)-1)
		}
	})
}

func TestTheRingRollsBeforeTheBudgetEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{MaxSeals: 160, SealBlock: 10})
		old := keyIDOf(t, mustSeal(t, r, "x"))
		for range 149 {
			mustSeal(t, r, "x")
		}
		pass(5 * time.Second)
		if p := store.primary(); p.ID == old {
			t.Fatal("the ring waits for the last seal")
		}
		// Already rolled: a provider that is down now does not matter.
		kms.fail(core.ErrUnavailable)
		for range 20 {
			mustSeal(t, r, "x")
		}
	})
}

func TestAnOlderPrimaryIsNotUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{})
		old := keyIDOf(t, mustSeal(t, r, "x"))
		backup := store.snapshot()
		if err := r.Roll(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustSeal(t, r, "x")
		store.edit(func(s *memoryStore) { s.state = backup }) // an old backup, or an attacker
		pass(5 * time.Second)
		record := mustSeal(t, r, "x")
		if id := keyIDOf(t, record); id == old {
			t.Error("sealed under a primary older than one seen before")
		}
		p := store.primary()
		if p.Version <= 2 || keyIDOf(t, record) != p.ID {
			t.Errorf("primary is version %d, want one above every version seen", p.Version)
		}
	})
}

func TestARewoundBudgetRollsTheRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{MaxSeals: 1600, SealBlock: 10})
		old := keyIDOf(t, mustSeal(t, r, "x"))
		for range 50 {
			mustSeal(t, r, "x")
		}
		pass(3 * time.Second)
		store.edit(func(s *memoryStore) { s.state.DataKeys[0].SealsReserved = 0 })
		pass(3 * time.Second)
		if keyIDOf(t, mustSeal(t, r, "x")) == old {
			t.Error("a key whose budget was set back goes on sealing")
		}
	})
}

func TestAForgedVersionDoesNotStopTheRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{})
		store.edit(func(s *memoryStore) {
			s.state.DataKeys = append(s.state.DataKeys, keyring.DataKeyState{ID: envelope.KeyID{9}, Version: math.MaxInt64, State: keyring.Enabled})
		})
		pass(time.Minute)
		mustSeal(t, r, "x")
		if err := r.Roll(t.Context()); err != nil {
			t.Fatal(err)
		}
		if v := store.primary().Version; v != 2 {
			t.Errorf("the next data key has version %d, want 2", v)
		}
	})
}
