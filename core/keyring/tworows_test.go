package keyring_test

import (
	"bytes"
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// generatingKMS calls a function before it makes a data key.
type generatingKMS struct {
	*scriptedKMS
	before func()
}

func (k *generatingKMS) GenerateDataKey(ctx context.Context, aad core.AAD) (core.DataKey, error) {
	if k.before != nil {
		k.before()
	}
	return k.scriptedKMS.GenerateDataKey(ctx, aad)
}

// A data key that is older than another does not seal because it has two rows: one with the
// version that its wrap is bound to, and one with a version above all.
func TestAPrimaryWithTwoRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms := &generatingKMS{scriptedKMS: newKMS("a")}
		store := newStore()
		first := mustStart(t, kms, store, keyring.Options{PollInterval: time.Hour})
		old := keyIDOf(t, mustSeal(t, first, "x"))
		if err := first.Roll(t.Context()); err != nil {
			t.Fatal(err)
		}
		record := mustSeal(t, first, "token")
		newest := keyIDOf(t, record)
		store.edit(func(s *memoryStore) {
			again := s.state.DataKeys[0]
			again.Version = 1000
			s.state.DataKeys = append([]keyring.DataKeyState{again}, s.state.DataKeys...)
			for i := range s.state.DataKeys {
				s.state.DataKeys[i].Primary = s.state.DataKeys[i].ID == old
			}
		})
		r := keyring.New(kms, store, &keyring.Options{PollInterval: time.Hour, Logger: slog.New(slog.DiscardHandler)})
		t.Cleanup(r.Close)
		asked := 0
		kms.before = func() { // the old one is in memory, and is to be replaced
			asked++
			mustOpen(t, r, record, "token", true)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if record, err := r.Seal(ctx, nil, []byte("x"), nil); err == nil {
				t.Errorf("sealed under %s, with %s in memory", keyIDOf(t, record), newest)
			}
		}
		if err := r.Start(t.Context()); err != nil || asked != 1 {
			t.Errorf("Start = %v, and %d data keys were made", err, asked)
		}
		if id := keyIDOf(t, mustSeal(t, r, "x")); id == old || id == newest {
			t.Errorf("sealed under %s", id)
		}
	})
}

// triedKMS counts how often one wrap is tried.
type triedKMS struct {
	*scriptedKMS
	wrap  []byte
	tries atomic.Int64
}

func (k *triedKMS) UnwrapDataKey(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
	if bytes.Equal(w.Wrapped, k.wrap) {
		k.tries.Add(1)
	}
	return k.scriptedKMS.UnwrapDataKey(ctx, w, aad)
}

// A wrap that did not unwrap is not tried again because the store returns it in the place
// of one that was just stored.
func TestAnotherWrapIsReadBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		escrow, store := newKMS("escrow"), newStore()
		kms := &triedKMS{scriptedKMS: newKMS("a"), wrap: bytes.Repeat([]byte{9}, 60)}
		first := mustStart(t, newKMS("lost"), store, keyring.Options{Recovery: []keyring.RecoveryKEK{keyring.NewRecoveryKEK(escrow)}})
		old := keyIDOf(t, mustSeal(t, first, "x"))
		first.Close()
		r, _ := start(t, kms, store, keyring.Options{NoAutoRewrap: true, PollInterval: time.Hour})
		if _, err := r.Recover(t.Context(), []core.KeyProvider{escrow}); err != nil { // makes a primary
			t.Fatal(err)
		}
		store.edit(func(s *memoryStore) {
			k := &s.state.DataKeys[0]
			k.Wraps = k.Wraps[:2] // lost again
			again := *k
			again.Wraps = append([]core.WrappedKey{{KEKID: kms.kekID(), Wrapped: kms.wrap}}, k.Wraps...)
			s.state.DataKeys = append(s.state.DataKeys, again)
		})
		again := mustStart(t, kms, store, keyring.Options{NoAutoRewrap: true, PollInterval: time.Hour})
		done, err := again.Recover(t.Context(), []core.KeyProvider{escrow})
		if err != nil || len(done) != 2 || done[0].DataKey != old || done[0].Err == nil {
			t.Fatalf("Recover = %+v, %v; want two that were not read back", done, err)
		}
		if n := kms.tries.Load(); n != 2 { // as it may be bound
			t.Errorf("a wrap that does not unwrap was tried %d times, want 2", n)
		}
	})
}
