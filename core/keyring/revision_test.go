package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

var revisionSeed = maphash.MakeSeed()

// revision is a hash of what the store holds; s.mu is held.
func (s *memoryStore) revision() string {
	var h maphash.Hash
	h.SetSeed(revisionSeed)
	_, _ = fmt.Fprint(&h, s.state.StoreID, s.state.LegacyClosed, s.state.Compromised)
	for i := range s.state.DataKeys {
		k := &s.state.DataKeys[i]
		_, _ = h.Write(k.ID[:])
		_, _ = fmt.Fprint(&h, k.Version, k.State, k.Primary, k.SealsReserved, k.CreatedAt.UnixNano(), k.DestroyedAt.UnixNano(), len(k.Wraps))
		for _, w := range k.Wraps {
			_, _ = fmt.Fprint(&h, len(w.KEKID), w.KEKID, len(w.Wrapped))
			_, _ = h.Write(w.Wrapped)
		}
	}
	return fmt.Sprint(h.Sum64())
}

// Revision implements keyring.Store.
func (s *memoryStore) Revision(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.called("revision"); err != nil {
		return "", err
	}
	return s.revision(), nil
}

// A ring that polls reads one number, and the ring when that changes; now and then it
// reads the ring whatever the number says.
func TestPollsReadTheRevision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{})
		mustSeal(t, r, "x")
		pass(poll) // learns of its own reservation
		loads, looks := store.count("load"), store.count("revision")
		pass(2 * time.Minute)
		if n := store.count("load") - loads; n != 0 {
			t.Errorf("%d loads while nothing changed", n)
		}
		if n := store.count("revision") - looks; n < 50 {
			t.Errorf("%d looks in two minutes", n)
		}
		other := mustStart(t, kms, store, keyring.Options{PollInterval: time.Hour})
		if err := other.Roll(t.Context()); err != nil {
			t.Fatal(err)
		}
		pass(poll)
		if got, want := r.Status().Primary, store.primary().ID; got != want {
			t.Errorf("after a poll the primary is taken for %s, and is %s", got, want)
		}
		loads = store.count("load")
		pass(time.Hour)
		if n := store.count("load") - loads; n < 11 || n > 13 {
			t.Errorf("%d loads in an hour", n)
		}
	})
}

// stuck is a store whose revision stays what it was, whatever changes.
type stuck struct {
	*memoryStore
	revision atomic.Value
}

func (s *stuck) Revision(ctx context.Context) (string, error) {
	if r, ok := s.revision.Load().(string); ok {
		return r, nil
	}
	return s.memoryStore.Revision(ctx)
}

func (s *stuck) stick(t *testing.T) {
	t.Helper()
	now, err := s.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.revision.Store(now)
}

// A database that lies about the revision puts off what a ring learns, for minutes, and
// weakens nothing: what the ring does itself it knows, and who asks for a load gets one.
func TestARevisionThatLies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newKMS("a"), newKMS("b")
		store := &stuck{memoryStore: newStore()}
		r := mustStart(t, b, store, keyring.Options{Previous: []core.KeyProvider{a}})
		mustSeal(t, r, "x")
		pass(poll)
		store.stick(t)
		store.compromise(b) // the current one
		pass(poll)
		if _, err := r.Seal(t.Context(), nil, nil, nil); err != nil {
			t.Fatalf("the lie has no effect: %v", err)
		}
		pass(6 * time.Minute)
		if _, err := r.Seal(t.Context(), nil, nil, nil); !errors.Is(err, core.ErrKeyMismatch) {
			t.Errorf("minutes later it seals under a compromised KEK: %v", err)
		}
		store.edit(func(s *memoryStore) { s.state.Compromised = nil })
		if err := r.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Seal(t.Context(), nil, nil, nil); !errors.Is(err, core.ErrKeyMismatch) {
			t.Errorf("it was forgotten: %v", err)
		}
	})
}

// A record under a data key that another instance just made opens, though the poll comes
// later; one of a data key that does not exist costs a look, and no load.
func TestUnknownDataKeysCostALook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{PollInterval: time.Hour})
		other := mustStart(t, kms, store, keyring.Options{PollInterval: time.Hour})
		if err := other.Roll(t.Context()); err != nil {
			t.Fatal(err)
		}
		record := mustSeal(t, other, "new")
		mustOpen(t, r, record, "new", false)
		if err := r.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		loads, began := store.count("load"), time.Now()
		for i := range 1000 {
			if _, _, err := r.Open(t.Context(), nil, forge(t, record, envelope.KeyID{9, byte(i), byte(i >> 8)}), nil); !errors.Is(err, core.ErrInvalidCiphertext) {
				t.Fatal(err)
			}
		}
		if n := store.count("load") - loads; n != 0 || time.Since(began) != 0 {
			t.Errorf("%d loads, %s", n, time.Since(began))
		}
		store.edit(func(s *memoryStore) { s.err = core.ErrStoreUnavailable })
		if _, _, err := r.Open(t.Context(), nil, forge(t, record, envelope.KeyID{8}), nil); !errors.Is(err, core.ErrUnavailable) {
			t.Errorf("while the database does not answer: %v", err)
		}
	})
}
