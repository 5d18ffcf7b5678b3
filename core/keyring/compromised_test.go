package keyring_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// poll is long enough for every ring to have looked at the store.
const poll = keyring.DefaultPollInterval + time.Second

func (s *memoryStore) compromise(keks ...*scriptedKMS) {
	s.edit(func(s *memoryStore) {
		s.state.Compromised = nil
		for _, k := range keks {
			s.state.Compromised = append(s.state.Compromised, k.kekID().Key())
		}
	})
}

// An instance whose current KEK was named compromised is told to configure another:
// it seals nothing and adds no wrap, and what a previous KEK unwraps still opens.
func TestACurrentKEKThatIsCompromised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, store := newKMS("a"), newKMS("b"), newStore()
		record := mustSeal(t, mustStart(t, b, store, keyring.Options{}), "token")
		store.compromise(a)
		ring, err := start(t, a, store, keyring.Options{Previous: []core.KeyProvider{b}})
		if !errors.Is(err, core.ErrKeyMismatch) || !strings.Contains(err.Error(), "the current KEK scripted:a#1 was named compromised; configure another") {
			t.Errorf("Start: %v", err)
		}
		pass(10 * poll)
		if _, err := ring.Seal(t.Context(), nil, nil, nil); !errors.Is(err, core.ErrKeyMismatch) {
			t.Errorf("Seal: %v", err)
		}
		if added, err := ring.Rewrap(t.Context()); !errors.Is(err, core.ErrKeyMismatch) || len(added) != 0 {
			t.Errorf("Rewrap = %v, %v", added, err)
		}
		if err := ring.Roll(t.Context()); !errors.Is(err, core.ErrKeyMismatch) {
			t.Errorf("Roll: %v", err)
		}
		if got := kekIDs(store.primary()); len(got) != 1 || len(store.snapshot().DataKeys) != 1 {
			t.Errorf("the wraps are %v, of %d data keys", got, len(store.snapshot().DataKeys))
		}
		store.edit(func(s *memoryStore) { // as from before it was named
			s.state.DataKeys[0].Wraps = append(s.state.DataKeys[0].Wraps, core.WrappedKey{KEKID: a.kekID()})
		})
		if removed, err := ring.Prune(t.Context(), keepNone); !errors.Is(err, core.ErrKeyMismatch) || len(removed) != 0 {
			t.Errorf("Prune = %v, %v", removed, err)
		}
		if n := a.count("wrap") + a.count("generate"); n != 0 {
			t.Errorf("the compromised KEK was asked %d times to wrap", n)
		}
		mustOpen(t, ring, record, "token", false)
	})
}

// A provider that wraps under another key than it names, as an alias that was moved,
// gets no wrap under a compromised one into the store.
func TestAWrapUnderACompromisedKEKThatWasNotNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, store := newKMS("a"), newKMS("b"), newStore()
		mustStart(t, b, store, keyring.Options{})
		store.compromise(a)
		moved := &movedAlias{scriptedKMS: a, named: newKMS("new").kekID()}
		if _, err := start(t, moved, store, keyring.Options{Previous: []core.KeyProvider{b}}); !errors.Is(err, core.ErrKeyMismatch) {
			t.Errorf("Start: %v", err)
		}
		if _, err := start(t, moved, newStoreWithout(a), keyring.Options{}); !errors.Is(err, core.ErrKeyMismatch) {
			t.Errorf("Start on an empty store: %v", err)
		}
		pass(10 * poll)
		if got := kekIDs(store.primary()); len(got) != 1 {
			t.Errorf("the wraps are %v", got)
		}
	})
}

// movedAlias names another KEK ID than it wraps under.
type movedAlias struct {
	*scriptedKMS
	named core.KEKID
}

func (m *movedAlias) Status(ctx context.Context) (core.Status, error) {
	s, err := m.scriptedKMS.Status(ctx)
	s.KEKID = m.named
	return s, err
}

// newStoreWithout is an empty store in which the KEK was named compromised.
func newStoreWithout(k *scriptedKMS) *memoryStore {
	s := newStore()
	s.compromise(k)
	return s
}

// A recovery KEK that was named compromised is passed over, with one line in the
// log: the ring rolls once, away from it, and not for ever.
func TestARecoveryKEKThatIsCompromised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, r, spare, store := newKMS("a"), newKMS("r"), newKMS("spare"), newStore()
		var log bytes.Buffer
		ring := mustStart(t, a, store, keyring.Options{
			Recovery: []keyring.RecoveryKEK{keyring.NewRecoveryKEK(r), keyring.NewRecoveryKEK(spare)},
			Logger:   slog.New(slog.NewTextHandler(&log, nil)),
		})
		record := mustSeal(t, ring, "token")
		store.compromise(r)
		pass(100 * poll)
		if n := len(store.snapshot().DataKeys); n != 2 {
			t.Errorf("there are %d data keys, want the one before and the one after", n)
		}
		if got := strings.Join(kekIDs(store.primary()), " "); got != "scripted:a#1 scripted:spare#1" {
			t.Errorf("the wraps of the primary are %s", got)
		}
		if added, err := ring.Rewrap(t.Context()); err != nil || len(added) != 0 {
			t.Errorf("Rewrap = %v, %v", added, err)
		}
		s := ring.Status()
		if len(s.Unprotected) != 0 || len(s.RecoveryKEKIDs) != 1 || s.RecoveryKEKIDs[0] != spare.kekID() {
			t.Errorf("Status names as recovery KEKs %v, as unprotected %v", s.RecoveryKEKIDs, s.Unprotected)
		}
		mustOpen(t, ring, record, "token", true)
		ring.Close()
		if n := strings.Count(log.String(), "a recovery KEK was named compromised"); n != 1 {
			t.Errorf("%d lines say so:\n%s", n, log.String())
		}
	})
}

// A ring that never heard of the recovery KEK before learns who it is first.
func TestANewRecoveryKEKThatIsCompromised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, r, store := newKMS("a"), newKMS("r"), newStore()
		store.compromise(r)
		ring := mustStart(t, a, store, keyring.Options{Recovery: []keyring.RecoveryKEK{keyring.NewRecoveryKEK(r)}})
		pass(10 * poll)
		if got := kekIDs(store.primary()); len(got) != 1 || r.count("wrap") != 0 || len(ring.Status().Unprotected) != 0 {
			t.Errorf("the wraps are %v, unprotected %v; the recovery KEK wrapped %d times", got, ring.Status().Unprotected, r.count("wrap"))
		}
	})
}

// What was named compromised stays so while a ring lives, whoever edits the database.
func TestCompromisedIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, r, other, store := newKMS("a"), newKMS("r"), newKMS("other"), newStore()
		ring := mustStart(t, a, store, keyring.Options{Recovery: []keyring.RecoveryKEK{keyring.NewRecoveryKEK(r)}})
		store.compromise(r)
		pass(poll)
		store.compromise(other) // instead
		pass(poll)
		if err := ring.Roll(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := kekIDs(store.primary()); len(got) != 1 {
			t.Errorf("the wraps are %v", got)
		}
		store.compromise() // nothing
		pass(10 * poll)
		if got := kekIDs(store.primary()); len(got) != 1 {
			t.Errorf("once nothing is named the wraps are %v", got)
		}
	})
}

// The wrap that tells that a primary is exposed stays until the ring has rolled.
func TestPruneDoesNotHideThatThePrimaryIsExposed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, store := newKMS("a"), newKMS("b"), newStore()
		mustStart(t, a, store, keyring.Options{PollInterval: time.Hour})
		ring := mustStart(t, b, store, keyring.Options{Previous: []core.KeyProvider{a}, PollInterval: time.Hour})
		store.compromise(a)
		if removed, err := ring.Prune(t.Context(), keepNone); err != nil || len(removed) != 0 {
			t.Errorf("Prune = %v, %v", removed, err)
		}
		if id := store.primary().ID; id == store.snapshot().DataKeys[0].ID {
			t.Error("the ring went on under an exposed data key")
		}
	})
}

// A data key stays exposed where the wrap that tells it was removed before the KEK was
// named: copies of the database still hold that wrap. A ring that saw it rolls.
func TestAKEKThatIsNamedOnceItsWrapsAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, store := newKMS("a"), newKMS("b"), newStore()
		mustStart(t, a, store, keyring.Options{PollInterval: time.Hour})
		ring := mustStart(t, b, store, keyring.Options{Previous: []core.KeyProvider{a}})
		old := keyIDOf(t, mustSeal(t, ring, "x"))
		if removed, err := ring.Prune(t.Context(), keepNone); err != nil || len(removed) != 1 {
			t.Fatalf("Prune = %v, %v", removed, err)
		}
		store.compromise(a)
		pass(poll)
		if id := keyIDOf(t, mustSeal(t, ring, "x")); id == old {
			t.Error("the ring goes on under a data key that was wrapped under the compromised KEK")
		}
	})
}

// Whatever had the ring load that its current KEK is compromised, it seals no more.
func TestALoadThatShowsACompromisedKEK(t *testing.T) {
	for name, loads := range map[string]func(*testing.T, *keyring.Ring){
		"rewrap": func(t *testing.T, r *keyring.Ring) { t.Helper(); _, _ = r.Rewrap(t.Context()) },
		"prune":  func(t *testing.T, r *keyring.Ring) { t.Helper(); _, _ = r.Prune(t.Context(), keepNone) },
		"lost":   func(t *testing.T, r *keyring.Ring) { t.Helper(); _, _ = r.Lost(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kms, store := newKMS("a"), newStore()
				ring := mustStart(t, kms, store, keyring.Options{PollInterval: time.Hour})
				record := mustSeal(t, ring, "token")
				store.compromise(kms)
				loads(t, ring)
				if _, err := ring.Seal(t.Context(), nil, nil, nil); !errors.Is(err, core.ErrKeyMismatch) {
					t.Errorf("Seal = %v, want ErrKeyMismatch", err)
				}
				mustOpen(t, ring, record, "token", false)
			})
		})
	}
}

// A data key that was on its way when the ring learned that its KEK is compromised does
// not get into the store.
func TestADataKeyOnItsWayWhenItsKEKIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		ring := mustStart(t, kms, store, keyring.Options{PollInterval: time.Hour})
		kms.script(func(k *scriptedKMS) { k.delay = 2 * time.Second })
		rolled := make(chan error, 1)
		go func() { rolled <- ring.Roll(t.Context()) }()
		pass(time.Second)
		store.compromise(kms)
		if _, err := ring.Examine(t.Context(), nil); err != nil { // loads
			t.Fatal(err)
		}
		if err := <-rolled; !errors.Is(err, core.ErrKeyMismatch) {
			t.Errorf("Roll = %v, want ErrKeyMismatch", err)
		}
		if n := len(store.snapshot().DataKeys); n != 1 {
			t.Errorf("there are %d data keys", n)
		}
	})
}
