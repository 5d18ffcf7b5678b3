package keyring_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// format1 seals "token" with the sealer.
func format1(t *testing.T, s *keyring.Sealer) []byte {
	t.Helper()
	record, err := s.SealFormat1(t.Context(), nil, []byte("token"), []byte("aad"))
	if err != nil {
		t.Fatalf("SealFormat1: %v", err)
	}
	return record
}

func sealerOf(t *testing.T, r *keyring.Ring, n int) *keyring.Sealer {
	t.Helper()
	s, err := r.Sealer(t.Context(), n)
	if err != nil {
		t.Fatalf("Sealer: %v", err)
	}
	return s
}

func TestASealerOutlivesARollAndADenial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{})
		rolled, denied := sealerOf(t, r, 2), sealerOf(t, r, 2)
		under := keyIDOf(t, mustSeal(t, r, "x"))
		if err := r.Roll(t.Context()); err != nil {
			t.Fatal(err)
		}
		if record := format1(t, rolled); keyIDOf(t, record) != under {
			t.Error("after a roll it seals under another data key")
		} else {
			mustOpen(t, r, record, "token", true)
		}
		kms.fail(core.ErrKeyDenied)
		pass(time.Minute)
		if r.Status().Unlocked != 0 {
			t.Fatal("the denial did not arrive")
		}
		if _, err := r.Sealer(t.Context(), 1); !errors.Is(err, core.ErrKeyDenied) {
			t.Errorf("Sealer of a ring that is denied = %v, want ErrKeyDenied", err)
		}
		record := format1(t, denied)
		pass(keyring.SealerLife - time.Minute)
		for _, seal := range []func(context.Context, []byte, []byte, []byte) ([]byte, error){denied.Seal, denied.SealFormat1} {
			if _, err := seal(t.Context(), nil, nil, nil); !errors.Is(err, keyring.ErrSealerSpent) {
				t.Errorf("after its time it seals: %v", err)
			}
		}
		kms.fail(nil)
		pass(time.Minute)
		mustOpen(t, r, record, "token", true)
	})
}

// What sealers take counts as used, whether they seal or not.
func TestSealersKeepTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{MaxSeals: 160, SealBlock: 10})
		var mu sync.Mutex
		sealed := map[envelope.KeyID]int{}
		var all sync.WaitGroup
		for i := range 300 {
			all.Go(func() {
				s, err := r.Sealer(t.Context(), 4)
				if errors.Is(err, core.ErrUnavailable) {
					return // the ring rolled all the time
				}
				if err != nil {
					t.Errorf("Sealer: %v", err)
					return
				}
				for range i % 5 {
					record := format1(t, s)
					mu.Lock()
					sealed[keyIDOf(t, record)]++
					mu.Unlock()
				}
				if i%5 == 4 {
					if _, err := s.SealFormat1(t.Context(), nil, nil, nil); !errors.Is(err, keyring.ErrSealerSpent) {
						t.Errorf("a fifth seal of four: %v", err)
					}
				}
			})
			if i%10 == 0 {
				all.Wait()
				pass(2 * time.Second)
			}
		}
		all.Wait()
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
		if len(sealed) < 4 {
			t.Errorf("the ring rolled only %d times", len(sealed)-1)
		}
	})
}

func TestASealerOfARingThatWritesLegacy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := legacyOf(t, envValue)
		r := mustStart(t, newKMS("a"), newStore(), keyring.Options{Legacy: source, WriteLegacy: true})
		s := sealerOf(t, r, 1)
		mustOpen(t, r, format1(t, s), "token", false)
		record, err := s.Seal(t.Context(), nil, []byte("token"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := source.keys[0].Open(nil, record); err != nil || string(got) != "token" {
			t.Errorf("upstream would read %q, %v", got, err)
		}
	})
}

func TestAReadOnlyRingHasNoSealer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore()
		mustStart(t, newKMS("a"), store, keyring.Options{}).Close()
		r, _ := start(t, newKMS("a"), store, keyring.Options{ReadOnly: true})
		if s, err := r.Sealer(t.Context(), 1); err == nil {
			t.Errorf("it has %v", s)
		}
	})
}
