package keyring_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// Here the database lies: an attacker who may write to it edits what a running ring
// reads.

// logText is a log that a test searches.
type logText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func hostileLog() (*slog.Logger, *logText) {
	log := new(logText)
	return slog.New(slog.NewTextHandler(log, nil)), log
}

func (s *memoryStore) key(id envelope.KeyID) *keyring.DataKeyState {
	for i := range s.state.DataKeys {
		if s.state.DataKeys[i].ID == id {
			return &s.state.DataKeys[i]
		}
	}
	return nil
}

// enthrone makes the data key named id the primary, of another version if not zero.
func (s *memoryStore) enthrone(id envelope.KeyID, version int64) {
	s.edit(func(s *memoryStore) {
		for i := range s.state.DataKeys {
			k := &s.state.DataKeys[i]
			k.Primary = k.ID == id
			if k.Primary && version != 0 {
				k.Version = version
			}
		}
	})
}

// forge returns record as if it were sealed under the data key named id.
func forge(t *testing.T, record []byte, id envelope.KeyID) []byte {
	t.Helper()
	was := keyIDOf(t, record)
	return bytes.Replace(record, was[:], id[:], 1)
}

// sealsUnderNone fails if the ring seals under one of the given data keys.
func sealsUnderNone(t *testing.T, r *keyring.Ring, retired ...envelope.KeyID) {
	t.Helper()
	for range 20 {
		pass(500 * time.Millisecond)
		record, err := r.Seal(t.Context(), nil, []byte("x"), []byte("aad"))
		if err != nil {
			continue
		}
		for _, id := range retired {
			if keyIDOf(t, record) == id {
				t.Fatalf("sealed under %s, which is retired", id)
			}
		}
	}
}

// A data key that was superseded never seals again, whatever the database says of
// its version, and it goes on opening.
func TestARetiredDataKeyNeverSealsAgain(t *testing.T) {
	for name, version := range map[string]int64{"made the primary again": 0, "and its version raised": 1000} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, logged := hostileLog()
				kms, store := newKMS("a"), newStore()
				r := mustStart(t, kms, store, keyring.Options{Logger: log})
				record := mustSeal(t, r, "token")
				old := keyIDOf(t, record)
				if err := r.Roll(t.Context()); err != nil {
					t.Fatal(err)
				}
				mustSeal(t, r, "x")
				store.enthrone(old, version)
				sealsUnderNone(t, r, old)
				mustSeal(t, r, "x") // under a new one
				mustOpen(t, r, record, "token", true)
				if !strings.Contains(logged.String(), "level=ERROR") || r.Status().Anomalies == 0 {
					t.Errorf("nothing was reported; %d anomalies, log %s", r.Status().Anomalies, logged)
				}
			})
		})
	}
}

// That also goes for a process that never unlocked the old key, and for a superseded
// one that was exposed by a KEK which its wraps do not name any more.
func TestASupersededKeyOfALeakedKEK(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leaked, current, store := newKMS("leaked"), newKMS("current"), newStore()
		old := keyIDOf(t, mustSeal(t, mustStart(t, leaked, store, keyring.Options{}), "x"))
		r := mustStart(t, current, store, keyring.Options{Previous: []core.KeyProvider{leaked}})
		store.compromise(leaked)
		pass(poll) // rolls
		if id := keyIDOf(t, mustSeal(t, r, "x")); id == old {
			t.Fatal("the ring did not roll")
		}
		store.edit(func(s *memoryStore) {
			k := s.key(old)
			k.Wraps = k.Wraps[1:] // the one under the leaked KEK
		})
		store.enthrone(old, 1000)
		sealsUnderNone(t, r, old)
	})
}

// A ring that unwrapped a newer data key, for whatever purpose, knows that the primary
// which the store names is an older one.
func TestANewerKeyThatWasOnlyWrapped(t *testing.T) {
	for name, unwraps := range map[string]func(*testing.T, *keyring.Ring){
		"while rewrapping": func(t *testing.T, r *keyring.Ring) { t.Helper(); _, _ = r.Rewrap(t.Context()) },
		"while pruning":    func(t *testing.T, r *keyring.Ring) { t.Helper(); _, _ = r.Prune(t.Context(), keepNone) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kms, escrow := newKMS("a"), newKMS("escrow")
				store, old, _ := rolled(t, kms)
				store.enthrone(old, 0)
				store.edit(func(s *memoryStore) { // for Prune
					s.state.DataKeys[1].Wraps = append(s.state.DataKeys[1].Wraps, core.WrappedKey{KEKID: "scripted:gone#1"})
				})
				r := mustStart(t, kms, store, keyring.Options{
					PollInterval: time.Hour, NoAutoRewrap: true, Recovery: []keyring.RecoveryKEK{keyring.NewRecoveryKEK(escrow)},
				})
				if id := keyIDOf(t, mustSeal(t, r, "x")); id != old {
					t.Fatalf("sealed under %s", id)
				}
				if err := r.RefreshRecovery(t.Context()); err != nil {
					t.Fatal(err)
				}
				unwraps(t, r)
				sealsUnderNone(t, r, old)
				mustSeal(t, r, "x")
			})
		})
	}
}

// The version that a wrap is bound to counts, and not the one that the database
// names later: here of the key that seals.
func TestAVersionThatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{})
		record := mustSeal(t, r, "token")
		id := keyIDOf(t, record)
		store.enthrone(id, 1000)
		pass(poll)
		sealsUnderNone(t, r, id)
		mustSeal(t, r, "x")
		mustOpen(t, r, record, "token", true)
	})
}

// The store ID is pinned for the life of a ring.
func TestAStoreThatIsSwapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store, other := newKMS("a"), newStore(), newStore()
		other.edit(func(s *memoryStore) { s.state.StoreID = "store-2" })
		planted := keyIDOf(t, mustSeal(t, mustStart(t, kms, other, keyring.Options{PollInterval: time.Hour}), "x"))
		r := mustStart(t, kms, store, keyring.Options{})
		record := mustSeal(t, r, "token")
		mine := store.snapshot()
		for name, state := range map[string]keyring.State{"another": other.snapshot(), "none": {}} {
			store.edit(func(s *memoryStore) { s.state = state })
			sealsUnderNone(t, r, planted)
			if _, err := r.Seal(t.Context(), nil, nil, nil); !errors.Is(err, core.ErrKeyMismatch) {
				t.Errorf("%s: Seal = %v, want ErrKeyMismatch", name, err)
			}
			mustOpen(t, r, record, "token", false)
			store.edit(func(s *memoryStore) { s.state = mine })
			pass(poll)
			mustSeal(t, r, "x")
		}
	})
}

// What this process reserved counts for itself.
func TestReservationsThatAreSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		const limit = 1600
		r := mustStart(t, kms, store, keyring.Options{MaxSeals: limit, PollInterval: time.Hour})
		seals := map[envelope.KeyID]int{}
		for range 3 * limit {
			store.edit(func(s *memoryStore) {
				for i := range s.state.DataKeys {
					s.state.DataKeys[i].SealsReserved = 0
				}
			})
			record, err := r.Seal(t.Context(), nil, []byte("x"), nil)
			if err != nil {
				pass(time.Minute) // it may roll only so often
				continue
			}
			seals[keyIDOf(t, record)]++
		}
		for id, n := range seals {
			if n > limit {
				t.Errorf("%d seals under %s, of %d", n, id, limit)
			}
		}
	})
}

// A wrap that does not unwrap is tried once.
func TestPlantedWrapsCostFewCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{})
		const planted = 300
		store.edit(func(s *memoryStore) {
			for i := range planted {
				s.state.DataKeys = append(s.state.DataKeys, keyring.DataKeyState{
					ID: envelope.KeyID{1, byte(i), byte(i >> 8)}, Version: int64(100 + i), State: keyring.Enabled,
					// An older version of the KEK, so that a wrap is missing.
					Wraps: []core.WrappedKey{{KEKID: core.NewKEKID("scripted:a", "0"), Wrapped: bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 20)}},
				})
			}
		})
		before := kms.count("unwrap")
		pass(30 * time.Minute)
		if n := kms.count("unwrap") - before; n > 2*planted+50 {
			t.Errorf("%d wraps that do not unwrap cost %d calls in half an hour", planted, n)
		}
		mustSeal(t, r, "x")
	})
}

// Only a refusal of what was seen to unwrap says something of the key: a service
// may refuse a wrap that was altered.
func TestARefusedWrapEvictsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{})
		record := mustSeal(t, r, "token")
		planted := core.WrappedKey{KEKID: kms.kekID(), Wrapped: bytes.Repeat([]byte{9}, 60)}
		kms.script(func(k *scriptedKMS) { k.refuses = planted.Wrapped })
		id := envelope.KeyID{9}
		store.edit(func(s *memoryStore) {
			s.state.DataKeys = append([]keyring.DataKeyState{{ID: id, Version: -1, State: keyring.Enabled, Wraps: []core.WrappedKey{planted}}}, s.state.DataKeys...)
		})
		pass(poll)
		other := forge(t, record, id)
		for range 10 {
			if _, _, err := r.Open(t.Context(), nil, other, []byte("aad")); err == nil {
				t.Fatal("a forged record opened")
			}
			mustOpen(t, r, record, "token", false)
			mustSeal(t, r, "x")
			pass(time.Minute)
		}
	})
}

// A key that was deleted and made anew under the same name opens nothing of what was
// wrapped before. It is noticed while data keys are still in memory.
func TestAKEKThatIsMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{})
		record := mustSeal(t, r, "token")
		kms.script(func(k *scriptedKMS) { k.aead = newKMS("a").aead })
		pass(time.Hour + time.Minute)
		if _, err := r.Seal(t.Context(), nil, nil, nil); !errors.Is(err, core.ErrKeyMismatch) {
			t.Errorf("Seal = %v, want ErrKeyMismatch", err)
		}
		mustOpen(t, r, record, "token", false)
	})
	t.Run("after an outage", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			kms, store := newKMS("a"), newStore()
			r := mustStart(t, kms, store, keyring.Options{})
			mustSeal(t, r, "token")
			kms.fail(core.ErrUnavailable)
			pass(time.Minute)
			kms.script(func(k *scriptedKMS) { k.aead, k.err = newKMS("a").aead, nil })
			pass(10 * time.Second)
			if _, err := r.Seal(t.Context(), nil, nil, nil); !errors.Is(err, core.ErrKeyMismatch) {
				t.Errorf("Seal = %v, want ErrKeyMismatch", err)
			}
		})
	})
}

// An outage is told when it begins, while it lasts and when it ends.
func TestAnOutageIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, logged := hostileLog()
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{Logger: log})
		const begins, lasts, ends = "the key provider does not answer", "the key provider still does not answer", "the key provider answers again"
		kms.fail(core.ErrUnavailable)
		pass(time.Minute)
		since := r.Status().OutageSince
		if strings.Count(logged.String(), begins) != 1 || since.IsZero() {
			t.Errorf("since %s; log %s", since, logged)
		}
		pass(20 * time.Minute)
		if n := strings.Count(logged.String(), lasts); n < 3 || n > 5 {
			t.Errorf("told %d times in twenty minutes; log %s", n, logged)
		}
		kms.fail(nil)
		pass(time.Minute)
		if strings.Count(logged.String(), ends) != 1 || !r.Status().OutageSince.IsZero() {
			t.Errorf("since %s; log %s", r.Status().OutageSince, logged)
		}
	})
}

// Who opens records of data keys that do not exist does not make the ring load for
// each, nor wait.
func TestUnknownDataKeysAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{PollInterval: time.Hour})
		record := mustSeal(t, r, "x")
		forged := forge(t, record, envelope.KeyID{7})
		if _, _, err := r.Open(t.Context(), nil, forged, nil); !errors.Is(err, core.ErrInvalidCiphertext) {
			t.Fatal(err)
		}
		began, loads := time.Now(), store.count("load")
		for range 1000 {
			if _, _, err := r.Open(t.Context(), nil, forged, nil); !errors.Is(err, core.ErrInvalidCiphertext) {
				t.Fatal(err)
			}
		}
		if n := store.count("load") - loads; n > 0 || time.Since(began) > 0 {
			t.Errorf("1000 records of a missing data key: %d loads, %s", n, time.Since(began))
		}
	})
}

// A batch of records whose data keys do not exist, each another, costs one load.
func TestABatchOfUnknownDataKeysCostsOneLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{PollInterval: time.Hour})
		record := mustSeal(t, r, "x")
		ids := []envelope.KeyID{keyIDOf(t, record)}
		for i := range 1000 {
			ids = append(ids, envelope.KeyID{7, byte(i), byte(i >> 8)})
		}
		loads := store.count("load")
		for range 3 {
			if err := r.Expect(t.Context(), ids...); err != nil {
				t.Fatal(err)
			}
			for _, id := range ids[1:] {
				if _, _, err := r.Open(t.Context(), nil, forge(t, record, id), nil); !errors.Is(err, core.ErrInvalidCiphertext) {
					t.Fatal(err)
				}
			}
		}
		if n := store.count("load") - loads; n != 1 {
			t.Errorf("%d loads", n)
		}
		// A data key that comes into being later is found by the next load.
		other := mustStart(t, kms, store, keyring.Options{PollInterval: time.Hour})
		if err := other.Roll(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustOpen(t, r, mustSeal(t, other, "new"), "new", false)
	})
}

// What kept the ring from sealing ends once it is mended in the store, without a
// restart: the altered wrap is put back, or recovery makes a new primary.
func TestAMismatchThatIsMended(t *testing.T) {
	mismatched := func(t *testing.T, r *keyring.Ring) {
		t.Helper()
		pass(time.Hour + time.Minute)
		if _, err := r.Seal(t.Context(), nil, nil, nil); !errors.Is(err, core.ErrKeyMismatch) {
			t.Fatalf("Seal = %v, want ErrKeyMismatch", err)
		}
	}
	t.Run("the wrap is put back", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			kms, store := newKMS("a"), newStore()
			r := mustStart(t, kms, store, keyring.Options{})
			mustSeal(t, r, "x")
			before := store.snapshot()
			store.edit(func(s *memoryStore) { s.state.DataKeys[0].Wraps[0].Wrapped = bytes.Repeat([]byte{9}, 60) })
			mismatched(t, r)
			store.edit(func(s *memoryStore) { s.state = before })
			pass(time.Minute)
			mustSeal(t, r, "x")
		})
	})
	t.Run("by recovery", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			kms, escrow, store := newKMS("a"), newKMS("escrow"), newStore()
			opts := keyring.Options{Recovery: []keyring.RecoveryKEK{keyring.NewRecoveryKEK(escrow)}}
			r := mustStart(t, kms, store, opts)
			record := mustSeal(t, r, "token")
			kms.script(func(k *scriptedKMS) { k.aead = newKMS("a").aead })
			mismatched(t, r)
			command, _ := start(t, kms, store, opts)
			if done, err := command.Recover(t.Context(), []core.KeyProvider{escrow}); err != nil || len(done) != 1 || done[0].Err != nil {
				t.Fatalf("Recover = %v, %v", done, err)
			}
			pass(time.Minute)
			mustSeal(t, r, "x")
			mustOpen(t, r, record, "token", true)
		})
	})
}

// A ring that made a new primary never seals under the one before, also if it never saw
// the new one in the store.
func TestAPrimaryThatTheStoreTakesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), &takesBack{memoryStore: newStore()}
		r := mustStart(t, kms, store, keyring.Options{})
		old := keyIDOf(t, mustSeal(t, r, "x"))
		store.lies.Store(true)
		if err := r.Roll(t.Context()); !errors.Is(err, core.ErrStoreUnavailable) {
			t.Fatalf("Roll = %v", err)
		}
		store.lies.Store(false)
		store.edit(func(s *memoryStore) { s.err = nil })
		pass(poll)
		sealsUnderNone(t, r, old)
		mustSeal(t, r, "x")
	})
}

// takesBack is a store that answers that a data key was inserted, and then holds what it
// held before, once it answers again.
type takesBack struct {
	*memoryStore
	lies atomic.Bool
}

func (s *takesBack) InsertDataKey(ctx context.Context, k keyring.NewDataKey) error {
	before := s.snapshot()
	err := s.memoryStore.InsertDataKey(ctx, k)
	if s.lies.Load() {
		s.edit(func(m *memoryStore) { m.state, m.err = before, core.ErrStoreUnavailable })
	}
	return err
}

// A database that keeps no primary has few data keys made.
func TestAPrimaryThatIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{})
		for range 60 * 60 {
			store.edit(func(s *memoryStore) {
				for i := range s.state.DataKeys {
					s.state.DataKeys[i].Primary = false
				}
			})
			pass(time.Second)
			_, _ = r.Seal(t.Context(), nil, []byte("x"), nil)
		}
		if n := len(store.snapshot().DataKeys); n > 16+60+2 {
			t.Errorf("%d data keys made in an hour", n)
		}
	})
}

// What is sealed under a primary whose wraps are gone could not be opened after a
// restart, so nothing is. Once they are back, it is.
func TestAPrimaryWhoseWrapsAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{})
		record := mustSeal(t, r, "token")
		kept := store.snapshot()
		store.edit(func(s *memoryStore) { s.state.DataKeys[0].Wraps = nil })
		pass(poll)
		if _, err := r.Seal(t.Context(), nil, nil, nil); !errors.Is(err, core.ErrKeyMismatch) {
			t.Errorf("Seal = %v, want ErrKeyMismatch", err)
		}
		mustOpen(t, r, record, "token", false)
		store.edit(func(s *memoryStore) { s.state = kept })
		pass(poll)
		mustSeal(t, r, "x")
	})
}

// That the key of a recovery KEK is missing says nothing of the records.
func TestARecoveryKEKThatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, recovery, store := newKMS("a"), newKMS("r"), newStore()
		recovery.fail(core.ErrKeyMissing)
		first := mustStart(t, kms, store, keyring.Options{})
		record := mustSeal(t, first, "token")
		first.Close()
		r := mustStart(t, kms, store, keyring.Options{Recovery: []keyring.RecoveryKEK{keyring.NewRecoveryKEK(recovery)}})
		store.edit(func(s *memoryStore) { s.state.DataKeys[0].Primary = false })
		pass(time.Minute)
		mustOpen(t, r, record, "token", true) // there is no primary
		if _, err := r.Seal(t.Context(), nil, nil, nil); !errors.Is(err, core.ErrUnavailable) {
			t.Errorf("Seal = %v, want ErrUnavailable", err)
		}
	})
}

// While unwrapping is denied, nothing is in memory, however healthy the status is.
func TestADenialLastsAsLongAsItLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before, kms, store := newKMS("before"), newKMS("a"), newStore()
		record := mustSeal(t, mustStart(t, before, store, keyring.Options{PollInterval: time.Hour}), "token")
		r := mustStart(t, kms, store, keyring.Options{Previous: []core.KeyProvider{before}})
		kms.script(func(k *scriptedKMS) { k.unwraps = core.ErrKeyDenied })
		pass(2 * time.Hour) // the primary's wrap is unwrapped every hour
		for range 10 * 60 {
			pass(time.Second)
			if n := r.Status().Unlocked; n != 0 {
				t.Fatalf("%d data keys in memory", n)
			}
			if _, _, err := r.Open(t.Context(), nil, record, []byte("aad")); err == nil {
				t.Fatal("a record opened")
			}
		}
		kms.script(func(k *scriptedKMS) { k.unwraps = nil })
		pass(time.Minute)
		mustOpen(t, r, record, "token", false)
	})
}
