package keyring_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// provingKMS calls a function, once, before it unwraps a wrap.
type provingKMS struct {
	*scriptedKMS

	mu     sync.Mutex
	wrap   []byte
	before func()
}

func (k *provingKMS) UnwrapDataKey(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
	k.mu.Lock()
	var before func()
	if bytes.Equal(w.Wrapped, k.wrap) {
		before, k.before = k.before, nil
	}
	k.mu.Unlock()
	if before != nil {
		before()
	}
	return k.scriptedKMS.UnwrapDataKey(ctx, w, aad)
}

// A denial ends with a status that was asked for after it, and not with one that it
// overtook.
func TestADenialOvertakesAStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := &provingKMS{scriptedKMS: newKMS("a")}, newStore()
		r := mustStart(t, kms, store, keyring.Options{})
		record := mustSeal(t, r, "token")
		old := store.primary().Wraps[0].Wrapped
		if err := r.Roll(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustSeal(t, r, "x")
		var denied atomic.Bool
		kms.mu.Lock()
		kms.wrap = store.primary().Wraps[0].Wrapped
		kms.before = func() { // as the primary's wrap is unwrapped again, once an hour
			denied.Store(true)
			kms.script(func(k *scriptedKMS) { k.refuses = old })
			_, _ = r.Lost(t.Context())
			kms.script(func(k *scriptedKMS) { k.refuses = nil })
		}
		kms.mu.Unlock()
		for range 2 * 3600 {
			if pass(time.Second); denied.Load() {
				break
			}
		}
		if _, _, err := r.Open(t.Context(), nil, record, []byte("aad")); !denied.Load() || !errors.Is(err, core.ErrKeyDenied) {
			t.Errorf("denied: %v; then Open = %v", denied.Load(), err)
		}
		pass(time.Minute)
		mustOpen(t, r, record, "token", true)
	})
}
