package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

func TestAFreshRingMakesOneDataKeyWithTwoCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{})
		for i := range 1000 {
			text := fmt.Sprint("token ", i)
			mustOpen(t, r, mustSeal(t, r, text), text, false)
		}
		if g, u, w := kms.count("generate"), kms.count("unwrap"), kms.count("wrap"); g != 1 || u != 1 || w != 0 {
			t.Errorf("calls: %d generate, %d unwrap, %d wrap; want 1, 1, 0", g, u, w)
		}
		if n := len(store.snapshot().DataKeys); n != 1 {
			t.Errorf("%d data keys, want 1", n)
		}
	})
}

func TestARestartCostsOneUnwrap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		record := mustSeal(t, mustStart(t, kms, store, keyring.Options{}), "token")
		before := kms.count("unwrap")
		r := mustStart(t, kms, store, keyring.Options{})
		mustOpen(t, r, record, "token", false)
		mustSeal(t, r, "another")
		pass(10 * time.Minute)
		if u, g := kms.count("unwrap")-before, kms.count("generate"); u != 1 || g != 1 {
			t.Errorf("%d unwraps, %d generates in all; want 1 and 1", u, g)
		}
	})
}

func TestTenInstancesAgreeOnOnePrimary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		kms.delay = 50 * time.Millisecond
		var wg sync.WaitGroup
		records := make([][]byte, 10)
		for i := range records {
			wg.Go(func() { records[i] = mustSeal(t, mustStart(t, kms, store, keyring.Options{}), "x") })
		}
		wg.Wait()
		if n := len(store.snapshot().DataKeys); n != 1 {
			t.Fatalf("%d data keys, want 1", n)
		}
		for _, record := range records {
			if keyIDOf(t, record) != store.snapshot().DataKeys[0].ID {
				t.Error("an instance sealed under a key that is not the primary")
			}
		}
	})
}

func TestAWrongKeyWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		right, wrong, store := newKMS("right"), newKMS("wrong"), newStore()
		first := mustStart(t, right, store, keyring.Options{})
		record := mustSeal(t, first, "token")
		before := store.snapshot()

		second, err := start(t, wrong, store, keyring.Options{})
		if !errors.Is(err, core.ErrKeyMismatch) {
			t.Fatalf("Start = %v, want ErrKeyMismatch", err)
		}
		for _, id := range []core.KEKID{right.kekID(), wrong.kekID()} {
			if !strings.Contains(err.Error(), string(id)) {
				t.Errorf("the error does not name %s: %v", id, err)
			}
		}
		pass(5 * time.Minute)
		if _, err := second.Seal(t.Context(), nil, []byte("x"), nil); !errors.Is(err, core.ErrKeyMismatch) {
			t.Errorf("Seal = %v, want ErrKeyMismatch", err)
		}
		if _, _, err := second.Open(t.Context(), nil, record, []byte("aad")); !errors.Is(err, core.ErrKeyMismatch) {
			t.Errorf("Open = %v, want ErrKeyMismatch", err)
		}
		after := store.snapshot()
		if len(after.DataKeys) != 1 || len(after.DataKeys[0].Wraps) != 1 || after.DataKeys[0].SealsReserved != before.DataKeys[0].SealsReserved {
			t.Errorf("the second instance changed the ring: %+v", after)
		}
		if wrong.count("generate")+wrong.count("wrap")+wrong.count("unwrap") != 0 {
			t.Error("the wrong provider was asked to generate, wrap or unwrap")
		}
		if second.Status().State != "mismatch" {
			t.Errorf("state %q, want mismatch", second.Status().State)
		}
		mustOpen(t, first, mustSeal(t, first, "undisturbed"), "undisturbed", false)
	})
}

func TestAProviderThatUnwrapsToAnotherKeyIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		kms.swap = true
		if _, err := start(t, kms, store, keyring.Options{}); !errors.Is(err, core.ErrInvalidCiphertext) {
			t.Errorf("Start = %v, want ErrInvalidCiphertext", err)
		}
		if n := len(store.snapshot().DataKeys); n != 0 {
			t.Error("a data key whose wrap does not come back was stored")
		}
		kms.script(func(k *scriptedKMS) { k.swap = false })
		pass(time.Minute)
		record := mustSeal(t, mustStart(t, kms, store, keyring.Options{}), "token")

		kms.script(func(k *scriptedKMS) { k.swap = true })
		r, err := start(t, kms, store, keyring.Options{})
		if !errors.Is(err, core.ErrKeyMismatch) {
			t.Errorf("Start = %v, want ErrKeyMismatch", err)
		}
		if _, _, err := r.Open(t.Context(), nil, record, []byte("aad")); err == nil {
			t.Error("a record opened under a key with another ID")
		}
	})
}

func TestWrapsAreBoundToStoreAndVersion(t *testing.T) {
	edits := map[string]func(*keyring.State){
		"another store":   func(s *keyring.State) { s.StoreID = "store-2" },
		"another version": func(s *keyring.State) { s.DataKeys[0].Version = 7 },
		"another key ID":  func(s *keyring.State) { s.DataKeys[0].ID[0] ^= 1 },
		"altered wrap":    func(s *keyring.State) { s.DataKeys[0].Wraps[0].Wrapped[20] ^= 1 },
	}
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kms, store := newKMS("a"), newStore()
				mustStart(t, kms, store, keyring.Options{}).Close()
				store.edit(func(s *memoryStore) { edit(&s.state) })
				if _, err := start(t, kms, store, keyring.Options{}); !errors.Is(err, core.ErrKeyMismatch) {
					t.Errorf("Start = %v, want ErrKeyMismatch", err)
				}
				if n := store.count("insert"); n != 1 {
					t.Errorf("%d data keys were inserted, want the first only", n)
				}
			})
		})
	}
}

func TestAPreviousKeyOpensAndIsWrappedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before, after, store := newKMS("before"), newKMS("after"), newStore()
		record := mustSeal(t, mustStart(t, before, store, keyring.Options{}), "token")

		r := mustStart(t, after, store, keyring.Options{Previous: []core.KeyProvider{before}})
		mustOpen(t, r, record, "token", false)
		mustSeal(t, r, "sealed after the change")
		wraps := store.snapshot().DataKeys[0].Wraps
		if len(wraps) != 2 || wraps[0].KEKID != before.kekID() || wraps[1].KEKID != after.kekID() {
			t.Fatalf("wraps are %v; want the old one and one under the new KEK", wraps)
		}
		if after.count("unwrap") != 1 {
			t.Error("the new wrap was not unwrapped and compared")
		}
		// The old key can go, and the old configuration goes on working beside.
		mustOpen(t, mustStart(t, after, store, keyring.Options{}), record, "token", false)
		mustOpen(t, mustStart(t, before, store, keyring.Options{}), record, "token", false)
	})
}

func TestNothingIsSealedUnderAKeyOnlyAPreviousProviderUnwrapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before, after, store := newKMS("before"), newKMS("after"), newStore()
		record := mustSeal(t, mustStart(t, before, store, keyring.Options{}), "token")
		after.script(func(k *scriptedKMS) { k.unwraps = core.ErrUnavailable })
		r, err := start(t, after, store, keyring.Options{Previous: []core.KeyProvider{before}})
		if !errors.Is(err, core.ErrUnavailable) {
			t.Fatalf("Start = %v, want ErrUnavailable", err)
		}
		if _, err := r.Seal(t.Context(), nil, nil, nil); !errors.Is(err, core.ErrUnavailable) {
			t.Errorf("Seal = %v, want ErrUnavailable", err)
		}
		mustOpen(t, r, record, "token", false)
	})
}

func TestAPreviousProvidersDenialIsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before, after, store := newKMS("before"), newKMS("after"), newStore()
		mustStart(t, before, store, keyring.Options{})
		r := mustStart(t, after, store, keyring.Options{Previous: []core.KeyProvider{before}})
		before.fail(core.ErrKeyDenied)
		pass(5 * time.Minute)
		mustSeal(t, r, "still")
	})
}

// What a previous provider answers says nothing of the current one: that no KEK
// unwraps the primary is a mismatch, and no denial and no missing key.
func TestAPreviousProvidersAnswerIsNotTheCurrentOnes(t *testing.T) {
	for _, answer := range []error{core.ErrKeyDenied, core.ErrKeyMissing} {
		t.Run(answer.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				before, after, store := newKMS("before"), newKMS("after"), newStore()
				mustStart(t, before, store, keyring.Options{})
				before.script(func(k *scriptedKMS) { k.unwraps = answer })
				r, err := start(t, after, store, keyring.Options{Previous: []core.KeyProvider{before}})
				if !errors.Is(err, core.ErrKeyMismatch) || errors.Is(err, answer) || !strings.Contains(err.Error(), answer.Error()) {
					t.Errorf("Start = %v, want ErrKeyMismatch with the text of the answer", err)
				}
				if s := r.Status().State; s != "mismatch" {
					t.Errorf("the state is %s", s)
				}
			})
		})
	}
}

func TestAnUnknownKeyIDReloadsTheRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		slow := keyring.Options{PollInterval: time.Hour}
		reader := mustStart(t, kms, store, slow)
		writer := mustStart(t, kms, store, slow)
		if err := writer.Roll(t.Context()); err != nil {
			t.Fatal(err)
		}
		record := mustSeal(t, writer, "sealed under the new primary")
		if keyIDOf(t, record) == store.snapshot().DataKeys[0].ID {
			t.Fatal("the ring did not roll")
		}
		mustOpen(t, reader, record, "sealed under the new primary", false)
	})
}

func TestGarbageStormsNeitherStoreNorProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{PollInterval: time.Hour, ReloadInterval: time.Second})
		record := mustSeal(t, r, "token")
		loads, unwraps := store.count("load"), kms.count("unwrap")
		began := time.Now()
		var wg sync.WaitGroup
		for i := range 500 {
			garbage := append([]byte(nil), record...)
			garbage[4+i%16] ^= byte(1 + i/16)
			wg.Go(func() {
				if _, _, err := r.Open(t.Context(), nil, garbage, []byte("aad")); !errors.Is(err, core.ErrInvalidCiphertext) {
					t.Errorf("Open = %v, want ErrInvalidCiphertext", err)
				}
			})
		}
		wg.Wait()
		if n := store.count("load") - loads; n < 1 || n > 2 {
			t.Errorf("500 unknown key IDs caused %d loads, want 1 or 2", n)
		}
		if kms.count("unwrap") != unwraps {
			t.Error("unknown key IDs reached the provider")
		}
		if waited := time.Since(began); waited > 3*time.Second {
			t.Errorf("answered after %s", waited)
		}
	})
}

func TestAReloadThatFailsIsUnavailableAndNotInvalid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{})
		record := mustSeal(t, r, "token")
		unknown := append([]byte(nil), record...)
		unknown[4] ^= 1
		store.edit(func(s *memoryStore) { s.err = core.ErrStoreUnavailable })
		_, _, err := r.Open(t.Context(), nil, unknown, []byte("aad"))
		if !errors.Is(err, core.ErrUnavailable) || !errors.Is(err, core.ErrStoreUnavailable) {
			t.Errorf("Open = %v, want ErrUnavailable because of ErrStoreUnavailable", err)
		}
		mustOpen(t, r, record, "token", false)
		mustSeal(t, r, "what is unlocked goes on")
	})
}

func TestUnlockingIsSharedAndAWaiterMayLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r, record := startAfterRoll(t, kms, store)
		kms.script(func(k *scriptedKMS) { k.delay = time.Second })
		before := kms.count("unwrap")
		impatient, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				ctx := t.Context()
				if i == 0 {
					ctx = impatient
				}
				_, _, err := r.Open(ctx, nil, record, []byte("aad"))
				if i == 0 && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("the impatient one got %v", err)
				}
				if i != 0 && err != nil {
					t.Errorf("a patient one got %v", err)
				}
			})
		}
		wg.Wait()
		if n := kms.count("unwrap") - before; n != 1 {
			t.Errorf("%d unwraps, want 1", n)
		}
		mustOpen(t, r, record, "token", true)
	})
}

func TestAFailedUnlockIsNotRepeatedBeforeItsBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r, record := startAfterRoll(t, kms, store)
		kms.script(func(k *scriptedKMS) { k.unwraps = core.ErrUnavailable })
		before := kms.count("unwrap")
		for range 100 {
			_, _, err := r.Open(t.Context(), nil, record, []byte("aad"))
			if !errors.Is(err, core.ErrUnavailable) {
				t.Fatalf("Open = %v, want ErrUnavailable", err)
			}
		}
		if n := kms.count("unwrap") - before; n != 1 {
			t.Errorf("%d unwraps in one backoff, want 1", n)
		}
		kms.script(func(k *scriptedKMS) { k.unwraps = nil })
		pass(time.Minute)
		mustOpen(t, r, record, "token", true)
	})
}

func TestACorruptWrapIsReplacedFromAPreviousOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before, after, store := newKMS("before"), newKMS("after"), newStore()
		record := mustSeal(t, mustStart(t, before, store, keyring.Options{}), "token")
		opts := keyring.Options{Previous: []core.KeyProvider{before}}
		mustStart(t, after, store, opts).Close()
		store.edit(func(s *memoryStore) { s.state.DataKeys[0].Wraps[1].Wrapped[20] ^= 1 })
		mustOpen(t, mustStart(t, after, store, opts), record, "token", false)
		mustOpen(t, mustStart(t, after, store, keyring.Options{}), record, "token", false)
	})
}

func TestADestroyedKeyLeavesMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{})
		record := mustSeal(t, r, "x")
		if err := r.Roll(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustOpen(t, r, record, "x", true)
		if _, err := store.DestroyDataKey(t.Context(), keyIDOf(t, record)); err != nil {
			t.Fatal(err)
		}
		pass(3 * time.Second)
		if _, _, err := r.Open(t.Context(), nil, record, []byte("aad")); !errors.Is(err, core.ErrInvalidCiphertext) {
			t.Errorf("Open = %v, want ErrInvalidCiphertext", err)
		}
		if n := r.Status().Unlocked; n != 1 {
			t.Errorf("%d data keys in memory, want 1", n)
		}
	})
}

func TestAReadOnlyRingWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before, after, store := newKMS("before"), newKMS("after"), newStore()
		empty := mustStart(t, after, newStore(), keyring.Options{ReadOnly: true})
		if _, err := empty.Seal(t.Context(), nil, nil, nil); err == nil {
			t.Error("a read-only ring sealed")
		}
		record := mustSeal(t, mustStart(t, before, store, keyring.Options{PollInterval: time.Hour}), "token")
		inserts, wraps, reserves := store.count("insert"), store.count("wrap"), store.count("reserve")
		r := mustStart(t, after, store, keyring.Options{ReadOnly: true, Previous: []core.KeyProvider{before}})
		mustOpen(t, r, record, "token", false)
		if _, err := r.Seal(t.Context(), nil, nil, nil); err == nil {
			t.Error("a read-only ring sealed")
		}
		pass(time.Minute)
		if store.count("insert") != inserts || store.count("wrap") != wraps || store.count("reserve") != reserves {
			t.Error("a read-only ring wrote to the store")
		}
	})
}
