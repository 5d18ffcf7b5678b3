package keyring_test

import (
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

// A load that began later and read earlier does not undo what the other one saw.
func TestLoadsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), &unevenStore{memoryStore: newStore()}
		slow := keyring.Options{PollInterval: time.Hour}
		r := mustStart(t, kms, store, slow)
		writer := mustStart(t, kms, store.memoryStore, slow)
		store.uneven.Store(true)
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := r.Reload(t.Context()); err != nil { // reads after two seconds
				t.Error(err)
			}
		})
		pass(500 * time.Millisecond)
		wg.Go(func() {
			if _, err := r.Examine(t.Context(), nil); err != nil { // would read at once, and return after three seconds
				t.Error(err)
			}
		})
		pass(500 * time.Millisecond)
		if err := writer.Roll(t.Context()); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if got, want := r.Status().Primary, store.primary().ID; got != want {
			t.Errorf("the primary is taken for %s, and is %s", got, want)
		}
	})
}

// A load that hangs keeps who waits for its turn no longer than they want to wait.
func TestALoadThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), &unevenStore{memoryStore: newStore()}
		r := mustStart(t, kms, store, keyring.Options{PollInterval: time.Hour})
		record := mustSeal(t, r, "token")
		store.hang.Store(true)
		go func() { _ = r.Reload(t.Context()) }()
		synctest.Wait()
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := r.Examine(impatient, nil); !errors.Is(err, core.ErrUnavailable) || time.Since(began) > time.Second {
			t.Errorf("Examine = %v after %s", err, time.Since(began))
		}
		store.hang.Store(false)
		if err := r.Reload(t.Context()); err == nil || time.Since(began) > keyring.DefaultCallTimeout {
			t.Errorf("the load that hangs ends with %v after %s", err, time.Since(began))
		}
		if err := r.Reload(t.Context()); err != nil {
			t.Error(err)
		}
		mustOpen(t, r, record, "token", false)
	})
}

// unevenStore answers loads as a busy database may.
type unevenStore struct {
	*memoryStore
	uneven atomic.Bool // the next load is late to begin, and the one after it late to return
	late   atomic.Bool
	hang   atomic.Bool
}

func (s *unevenStore) LoadRing(ctx context.Context) (keyring.State, error) {
	switch {
	case s.hang.Load():
		<-ctx.Done()
		return keyring.State{}, core.ErrStoreUnavailable
	case s.uneven.CompareAndSwap(true, false):
		s.late.Store(true)
		time.Sleep(2 * time.Second)
	case s.late.CompareAndSwap(true, false):
		defer time.Sleep(3 * time.Second)
	}
	return s.memoryStore.LoadRing(ctx)
}
