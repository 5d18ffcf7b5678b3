package keyring_test

import (
	"context"
	"log/slog"
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

// Of a data key that has two rows the one that says a version above all does not have it
// seal under the version of the other.
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
