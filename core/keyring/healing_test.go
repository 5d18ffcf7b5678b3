package keyring_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// While the service unwraps what seals, its refusal of another wrap concerns that wrap: a
// record that somebody planted does not open, and is no denial.
func TestARefusedWrapIsNoDenial(t *testing.T) {
	for name, readOnly := range map[string]bool{"a ring that seals": false, "one that only looks": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kms, store := newKMS("a"), newStore()
				record := mustSeal(t, mustStart(t, kms, store, keyring.Options{}), "token")
				planted := core.WrappedKey{KEKID: kms.kekID(), Wrapped: bytes.Repeat([]byte{9}, 60)}
				kms.script(func(k *scriptedKMS) { k.refuses = planted.Wrapped })
				id := envelope.KeyID{9}
				store.edit(func(s *memoryStore) {
					s.state.DataKeys = append(s.state.DataKeys, keyring.DataKeyState{ID: id, Version: 9, State: keyring.Enabled, Wraps: []core.WrappedKey{planted}})
				})
				r := mustStart(t, kms, store, keyring.Options{ReadOnly: readOnly})
				if _, _, err := r.Open(t.Context(), nil, forge(t, record, id), []byte("aad")); !errors.Is(err, core.ErrKeyMismatch) || errors.Is(err, core.ErrKeyDenied) {
					t.Errorf("Open = %v, want core.ErrKeyMismatch alone", err)
				}
				mustOpen(t, r, record, "token", false)
				kms.script(func(k *scriptedKMS) { k.unwraps = core.ErrKeyDenied })
				pass(time.Hour)
				if _, _, err := r.Open(t.Context(), nil, forge(t, record, id), []byte("aad")); !errors.Is(err, core.ErrKeyDenied) {
					t.Errorf("once all is denied, Open = %v", err)
				}
			})
		})
	}
}

// Before the store was seen nobody knows whether it takes legacy records, or is the one
// that is meant.
func TestNothingOpensBeforeTheFirstLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, store := legacyOf(t, envValue), newStore()
		legacy := source.keys[0].Seal(nil, []byte("token"))
		store.edit(func(s *memoryStore) { s.err, s.state.LegacyClosed = core.ErrStoreUnavailable, true })
		r, err := start(t, newKMS("a"), store, keyring.Options{Legacy: source})
		if !errors.Is(err, core.ErrStoreUnavailable) {
			t.Fatal(err)
		}
		if _, _, err := r.Open(t.Context(), nil, legacy, nil); !errors.Is(err, core.ErrStoreUnavailable) {
			t.Errorf("before the first load, a legacy record: %v", err)
		}
		store.edit(func(s *memoryStore) { s.err = nil })
		pass(poll)
		if _, _, err := r.Open(t.Context(), nil, legacy, nil); !errors.Is(err, core.ErrInvalidCiphertext) {
			t.Errorf("of a store that is closed, a legacy record: %v", err)
		}
		mustOpen(t, r, mustSeal(t, r, "token"), "token", false)
	})
}

// A ring that expects a store refuses another at the first load, and takes up its own once
// that is back.
func TestAStoreThatIsExpected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store, source := newKMS("a"), newStore(), legacyOf(t, envValue)
		record := mustSeal(t, mustStart(t, kms, store, keyring.Options{PollInterval: time.Hour}), "token")
		mine := store.snapshot().StoreID
		legacy := source.keys[0].Seal(nil, []byte("token"))
		for _, opts := range []keyring.Options{{StoreID: "another"}, {StoreID: "another", ReadOnly: true}} {
			writes := store.count("insert") + store.count("reserve") + store.count("wrap")
			opts.Legacy = source
			r, err := start(t, kms, store, opts)
			if !errors.Is(err, keyring.ErrOtherStore) || !errors.Is(err, core.ErrKeyMismatch) {
				t.Errorf("Start = %v", err)
			}
			for _, record := range [][]byte{record, legacy} {
				if _, _, err := r.Open(t.Context(), nil, record, []byte("aad")); !errors.Is(err, keyring.ErrOtherStore) {
					t.Errorf("Open = %v", err)
				}
			}
			if _, err := r.Seal(t.Context(), nil, nil, nil); err == nil {
				t.Error("sealed into another store")
			}
			pass(time.Minute)
			if n := store.count("insert") + store.count("reserve") + store.count("wrap") - writes; n != 0 {
				t.Errorf("%d writes to another store", n)
			}
		}
		mustOpen(t, mustStart(t, kms, store, keyring.Options{StoreID: mine}), record, "token", false)
		r, _ := start(t, kms, store, keyring.Options{StoreID: "store-2"})
		store.edit(func(s *memoryStore) { s.state = keyring.State{StoreID: "store-2"} })
		pass(poll)
		mustSeal(t, r, "x")
	})
}

// A primary whose wrap under the current KEK was altered seals again by itself where a
// previous KEK unwraps it.
func TestAMismatchHealsThroughThePreviousKEK(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, store := newKMS("a"), newKMS("b"), newStore()
		record := mustSeal(t, mustStart(t, a, store, keyring.Options{PollInterval: time.Hour}), "token")
		r := mustStart(t, b, store, keyring.Options{Previous: []core.KeyProvider{a}})
		b.script(func(k *scriptedKMS) { k.aead = newKMS("b").aead }) // made anew under its name
		b.fail(core.ErrUnavailable)
		pass(time.Minute)
		b.fail(nil)
		pass(2 * time.Minute)
		mustSeal(t, r, "x")
		again := mustStart(t, b, store, keyring.Options{Previous: []core.KeyProvider{a}})
		mustOpen(t, again, record, "token", false)
		p := store.primary()
		if w, ok := p.WrapUnder(b.kekID()); !ok {
			t.Error("the primary has no wrap under the current KEK")
		} else if _, err := b.UnwrapDataKey(t.Context(), w, core.WrapAAD(store.snapshot().StoreID, fmt.Sprint(p.Version))); err != nil {
			t.Errorf("its wrap under the current KEK: %v", err)
		}
	})
}

// The wrap of a primary that was just made is watched at once, and not from the next poll.
func TestANewPrimaryIsWatchedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{PollInterval: 1000 * time.Hour})
		kms.fail(core.ErrUnavailable)
		pass(time.Minute)
		kms.script(func(k *scriptedKMS) { k.aead, k.err = newKMS("a").aead, nil })
		pass(10 * time.Second)
		if _, err := r.Seal(t.Context(), nil, nil, nil); !errors.Is(err, core.ErrKeyMismatch) {
			t.Errorf("Seal = %v, want ErrKeyMismatch", err)
		}
	})
}

// What goes over all data keys waits for a provider that hangs no longer than for one
// call, whatever its caller would wait.
func TestWhatGoesOverDataKeysEnds(t *testing.T) {
	for name, do := range map[string]func(context.Context, *keyring.Ring, core.KeyProvider) error{
		"Lost": func(ctx context.Context, r *keyring.Ring, _ core.KeyProvider) error {
			_, err := r.Lost(ctx)
			return err
		},
		"Prune": func(ctx context.Context, r *keyring.Ring, _ core.KeyProvider) error {
			_, err := r.Prune(ctx, keepNone)
			return err
		},
		"Recover": func(ctx context.Context, r *keyring.Ring, p core.KeyProvider) error {
			_, err := r.Recover(ctx, []core.KeyProvider{p})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kms := newKMS("a")
				store, _, _ := rolled(t, kms)
				r := mustStart(t, kms, store, keyring.Options{PollInterval: 1000 * time.Hour, StatusInterval: 1000 * time.Hour})
				store.edit(func(s *memoryStore) {
					for i := range s.state.DataKeys {
						s.state.DataKeys[i].Wraps = append(s.state.DataKeys[i].Wraps, core.WrappedKey{KEKID: "scripted:gone#1"})
					}
				})
				kms.script(func(k *scriptedKMS) { k.delay = 1000 * time.Hour })
				began := time.Now()
				if err := do(context.Background(), r, kms); !errors.Is(err, core.ErrUnavailable) || time.Since(began) > time.Minute {
					t.Errorf("%v after %s", err, time.Since(began))
				}
			})
		})
	}
}
