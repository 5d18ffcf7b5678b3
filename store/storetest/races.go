package storetest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/store"
)

func testRaces(t *testing.T, h Harness) {
	t.Run("parallel deposits of one user and server all succeed", func(t *testing.T) {
		db, s, key := withKey(t, h)
		other := db.Open(t)
		succeeded := 0
		for range 25 {
			won, lost := race(8, func(i int) error {
				instance := s
				if i%2 == 1 {
					instance = other
				}
				return instance.Upsert(t.Context(), row(1, "server", sealed(key)), key, 0)
			})
			succeeded += won
			for _, err := range lost {
				t.Error(err)
			}
		}
		if c := counts(t, s); succeeded != 200 || c.Credentials != 1 {
			t.Errorf("%d of 200 succeeded, and there are %d credentials, want 1", succeeded, c.Credentials)
		}
	})

	// A deposit is sealed, and stops; the key is destroyed; the deposit goes on.
	t.Run("a key is destroyed between sealing and writing", func(t *testing.T) {
		db, slow, old := withKey(t, h)
		destroyer := db.Open(t)
		stopped := row(1, "server", sealed(old))

		primary := insertKey(t, destroyer, 2, old)
		if _, err := destroyer.DestroyDataKey(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		if err := slow.Upsert(t.Context(), stopped, old, 0); !errors.Is(err, keyring.ErrNotEnabled) {
			t.Errorf("the deposit goes on with %v, want keyring.ErrNotEnabled", err)
		}
		nothingUnderDestroyed(t, slow)
		deposit(t, slow, 1, "server", primary) // sealed anew
	})

	t.Run("a key is destroyed while it is written under", func(t *testing.T) {
		db, a, old := withKey(t, h)
		b := db.Open(t)
		primary := old
		for i := range 20 {
			old = primary
			primary = insertKey(t, b, int64(2+i), old)
			var destroying error
			var all sync.WaitGroup
			all.Go(func() { _, destroying = b.DestroyDataKey(t.Context(), old) })
			writing := a.Upsert(t.Context(), row(1, fmt.Sprint(i), sealed(old)), old, 0)
			all.Wait()
			written := writing == nil && errors.Is(destroying, keyring.ErrInUse)
			destroyed := errors.Is(writing, keyring.ErrNotEnabled) && destroying == nil
			if !written && !destroyed {
				t.Fatalf("writing: %v, destroying: %v; want one to succeed", writing, destroying)
			}
		}
		nothingUnderDestroyed(t, a)
	})

	t.Run("keys are rolled and destroyed under a stream of deposits", func(t *testing.T) { testStream(t, h) })
}

// testStream lets two instances deposit without pause, each under the primary
// that it last saw, while a third rolls the ring and destroys what it can.
func testStream(t *testing.T, h Harness) {
	db, roller, first := withKey(t, h)
	writers := []store.Store{db.Open(t), db.Open(t)}
	var done atomic.Bool
	var deposits, renewed atomic.Int64
	begun := make(chan struct{})
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() {
			s, under := writers[i%len(writers)], first
			for n := 0; !done.Load(); n++ {
				// Few rows, so that old records are soon overwritten.
				err := s.Upsert(t.Context(), row(int64(i), fmt.Sprint(n%2), sealed(under)), under, 0)
				switch {
				case err == nil:
					if deposits.Add(1) == 1 {
						close(begun)
					}
				case errors.Is(err, keyring.ErrNotEnabled):
					renewed.Add(1)
				default:
					t.Errorf("writing: %v", err)
					return
				}
				if err != nil || n%5 == 4 {
					state, err := s.LoadRing(t.Context())
					if err != nil {
						t.Errorf("loading ring: %v", err)
						return
					}
					under = state.Primary().ID
				}
			}
		})
	}
	failed := make(chan struct{})
	go func() {
		all.Wait()
		close(failed)
	}()
	select { // a busy machine may run the roller alone for a while
	case <-begun:
	case <-failed:
	}
	destroyed := roll(t, roller, first, 40)
	done.Store(true)
	all.Wait()
	nothingUnderDestroyed(t, roller)
	t.Logf("%d deposits, %d of which were sealed anew, while %d keys were destroyed", deposits.Load(), renewed.Load(), destroyed)
	if destroyed == 0 || deposits.Load() == 0 {
		t.Error("nothing was raced")
	}
}

// roll makes new primaries and destroys every older key that it can, until at
// least one was destroyed and there are as many as asked for.
func roll(t *testing.T, s store.Store, primary envelope.KeyID, atLeast int64) (destroyed int) {
	t.Helper()
	var old []envelope.KeyID
	for version := int64(2); version <= atLeast || destroyed == 0; version++ {
		old = append(old, primary)
		primary = insertKey(t, s, version, primary)
		var inUse []envelope.KeyID
		for _, id := range old {
			switch _, err := s.DestroyDataKey(t.Context(), id); {
			case err == nil:
				destroyed++
			case errors.Is(err, keyring.ErrInUse):
				inUse = append(inUse, id)
			default:
				t.Errorf("destroying: %v", err)
				return destroyed
			}
		}
		old = inUse
		nothingUnderDestroyed(t, s)
	}
	return destroyed
}

// nothingUnderDestroyed looks for what must never be: a record that nothing can
// open any more.
func nothingUnderDestroyed(t *testing.T, s store.Store) {
	t.Helper()
	state, held := loadRing(t, s), counts(t, s)
	for _, k := range state.DataKeys {
		if n := held.ByKey[k.ID]; k.State == keyring.Destroyed && n > 0 {
			t.Errorf("%d records are sealed under data key %d, which is destroyed", n, k.Version)
		}
	}
}
