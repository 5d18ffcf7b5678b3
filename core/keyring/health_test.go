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
	"github.com/lockwood-kms/lockwood/core/keyring"
)

func TestADenialEvictsAndHealthReadmits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before, kms, store := newKMS("before"), newKMS("a"), newStore()
		mustStart(t, before, store, keyring.Options{PollInterval: time.Hour}).Close()
		r := mustStart(t, kms, store, keyring.Options{Previous: []core.KeyProvider{before}})
		record := mustSeal(t, r, "token")

		kms.fail(core.ErrKeyDenied)
		pass(40 * time.Second) // one status
		if n := r.Status().Unlocked; n != 0 {
			t.Errorf("%d data keys in memory after a denial", n)
		}
		previous := before.count("unwrap")
		pass(10 * time.Minute)
		if _, err := r.Seal(t.Context(), nil, nil, nil); !errors.Is(err, core.ErrKeyDenied) {
			t.Errorf("Seal = %v, want ErrKeyDenied", err)
		}
		if _, _, err := r.Open(t.Context(), nil, record, []byte("aad")); !errors.Is(err, core.ErrKeyDenied) {
			t.Errorf("Open = %v, want ErrKeyDenied", err)
		}
		if before.count("unwrap") != previous {
			t.Error("what the denial evicted was unlocked again through another wrap")
		}
		kms.fail(nil)
		pass(10 * time.Second)
		mustOpen(t, r, record, "token", false)
		mustSeal(t, r, "again")
	})
}

func TestADenialAtUnwrapEvictsToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r, record := startAfterRoll(t, kms, store)
		kms.script(func(k *scriptedKMS) { k.unwraps = core.ErrKeyDenied })
		if _, _, err := r.Open(t.Context(), nil, record, []byte("aad")); !errors.Is(err, core.ErrKeyDenied) {
			t.Errorf("Open = %v, want ErrKeyDenied", err)
		}
		synctest.Wait() // the wrap that seals is tried, and denied too
		if n := r.Status().Unlocked; n != 0 {
			t.Errorf("%d data keys in memory after a denial", n)
		}
	})
}

func TestAnOutageIsBridgedForTheLengthOfItsBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{OutageBudget: time.Hour})
		record := mustSeal(t, r, "token")
		pass(3 * time.Hour) // healthy all the while
		kms.fail(core.ErrUnavailable)
		began := time.Now()
		for time.Since(began) < 59*time.Minute {
			mustSeal(t, r, "x")
			mustOpen(t, r, record, "token", false)
			pass(time.Minute)
		}
		if left := r.Status().OutageBudgetLeft; left > time.Minute+time.Second {
			t.Errorf("%s of the budget left, though the outage has lasted 59 minutes", left)
		}
		pass(2 * time.Minute)
		if _, err := r.Seal(t.Context(), nil, nil, nil); !errors.Is(err, core.ErrUnavailable) {
			t.Errorf("Seal = %v, want ErrUnavailable", err)
		}
		if _, _, err := r.Open(t.Context(), nil, record, []byte("aad")); !errors.Is(err, core.ErrUnavailable) {
			t.Errorf("Open = %v, want ErrUnavailable", err)
		}
		if n := r.Status().Unlocked; n != 0 {
			t.Errorf("%d data keys in memory after the budget", n)
		}
		kms.fail(nil)
		pass(10 * time.Second)
		mustOpen(t, r, record, "token", false)
		mustSeal(t, r, "again")
	})
}

func TestASlowProviderIsAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{OutageBudget: 10 * time.Minute})
		mustSeal(t, r, "x")
		kms.script(func(k *scriptedKMS) { k.delay = 24 * time.Hour })
		pass(9 * time.Minute)
		mustSeal(t, r, "x")
		pass(2 * time.Minute)
		if _, err := r.Seal(t.Context(), nil, nil, nil); !errors.Is(err, core.ErrUnavailable) {
			t.Errorf("Seal = %v, want ErrUnavailable", err)
		}
	})
}

func TestAProviderThatIsDownAtStartIsTakenUpLater(t *testing.T) {
	for name, err := range map[string]error{
		"missing": core.ErrKeyMissing, "denied": core.ErrKeyDenied, "unavailable": errors.New("connection refused"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				want := err
				if name == "unavailable" {
					want = core.ErrUnavailable // what is no sentinel decides nothing
				}
				kms, store := newKMS("a"), newStore()
				kms.fail(err)
				r, startErr := start(t, kms, store, keyring.Options{})
				if !errors.Is(startErr, want) {
					t.Fatalf("Start = %v, want %v", startErr, want)
				}
				pass(10 * time.Minute)
				if _, err := r.Seal(t.Context(), nil, nil, nil); !errors.Is(err, want) {
					t.Errorf("Seal = %v, want %v", err, want)
				}
				if r.Status().State != name {
					t.Errorf("state %q, want %q", r.Status().State, name)
				}
				kms.fail(nil)
				pass(10 * time.Second)
				mustOpen(t, r, mustSeal(t, r, "token"), "token", false)
			})
		})
	}
}

func TestADatabaseThatIsDownAtStartIsTakenUpLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		store.err = core.ErrStoreUnavailable
		r, err := start(t, kms, store, keyring.Options{})
		if !errors.Is(err, core.ErrStoreUnavailable) {
			t.Fatalf("Start = %v, want ErrStoreUnavailable", err)
		}
		if _, err := r.Seal(t.Context(), nil, nil, nil); !errors.Is(err, core.ErrStoreUnavailable) {
			t.Errorf("Seal = %v, want ErrStoreUnavailable", err)
		}
		store.edit(func(s *memoryStore) { s.err = nil })
		pass(3 * time.Second)
		mustSeal(t, r, "x")
	})
}

// A recovery KEK that hangs does not keep the ring from sealing again.
func TestARecoveryKEKThatHangsDelaysNothing(t *testing.T) {
	for name, behind := range map[string]time.Duration{"wraps are missing": 0, "the primary is old": 48 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kms, store := newKMS("a"), newStore()
				store.clockBehind = behind
				mustStart(t, kms, store, keyring.Options{PollInterval: time.Hour})
				r := mustStart(t, kms, store, keyring.Options{
					Recovery: []keyring.RecoveryKEK{hanging{newKMS("r")}}, MaxAge: 24 * time.Hour,
				})
				kms.fail(core.ErrKeyDenied)
				pass(2 * time.Minute)
				kms.fail(nil)
				began := time.Now()
				for r.Status().State != "ready" && time.Since(began) < time.Minute {
					pass(100 * time.Millisecond)
				}
				if waited := time.Since(began); waited > 7*time.Second { // one status after a failure, and a load
					t.Errorf("the ring seals %s after its provider is healthy again", waited)
				}
				mustSeal(t, r, "token")
			})
		})
	}
}

// hanging is a recovery KEK that says who it is, and does not wrap.
type hanging struct{ *scriptedKMS }

func (h hanging) KEKID(context.Context) (core.KEKID, error) { return h.kekID(), nil }

func (hanging) WrapDataKey(ctx context.Context, _ []byte, _ core.AAD) (core.WrappedKey, error) {
	<-ctx.Done()
	return core.WrappedKey{}, fmt.Errorf("%w: %w", core.ErrUnavailable, ctx.Err())
}

// Status needs no plaintext. The wrap of the primary is unwrapped every hour, to see
// that it still does.
func TestHealthReleasesLittlePlaintext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		mustSeal(t, mustStart(t, kms, store, keyring.Options{}), "x")
		pass(24 * time.Hour)
		if u, s := kms.count("unwrap"), kms.count("status"); u < 20 || u > 25 || s < 2500 || s > 3500 {
			t.Errorf("a day of health: %d unwraps and %d statuses; want one an hour and about 2880", u, s)
		}
	})
}

func TestAClosedRingHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := mustStart(t, newKMS("a"), newStore(), keyring.Options{})
		record := mustSeal(t, r, "x")
		r.Close()
		if _, err := r.Seal(t.Context(), nil, nil, nil); err == nil {
			t.Error("a closed ring sealed")
		}
		if _, _, err := r.Open(t.Context(), nil, record, []byte("aad")); err == nil {
			t.Error("a closed ring opened")
		}
	})
}

// A provider that says it is healthy, and denies what it unwrapped before, is not: the
// data keys stay out of memory, even those that it would unwrap the next moment.
func TestADenialCountsWhateverTheStatusIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{PollInterval: time.Hour})
		record := mustSeal(t, r, "token")
		if err := r.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		kms.fail(core.ErrKeyDenied)
		pass(40 * time.Second)
		store.edit(func(s *memoryStore) { s.err = core.ErrStoreUnavailable }) // so that nothing else asks
		kms.script(func(k *scriptedKMS) { k.err, k.unwraps = nil, core.ErrKeyDenied })
		for unwraps := kms.count("unwrap"); kms.count("unwrap") == unwraps; { // until the status is healthy
			pass(100 * time.Millisecond)
		}
		kms.script(func(k *scriptedKMS) { k.unwraps = nil })
		if _, _, err := r.Open(t.Context(), nil, record, []byte("aad")); !errors.Is(err, core.ErrKeyDenied) {
			t.Errorf("Open = %v, want ErrKeyDenied", err)
		}
		pass(10 * time.Second)
		mustOpen(t, r, record, "token", false)
	})
}

// A provider that refuses the altered wrap of the primary is asked for it now and then,
// and goes on being asked for its status.
func TestARefusedPrimaryWrapStormsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{OutageBudget: 10 * time.Minute})
		mustSeal(t, r, "x")
		altered := bytes.Repeat([]byte{9}, 60)
		store.edit(func(s *memoryStore) { s.state.DataKeys[0].Wraps[0].Wrapped = altered })
		kms.script(func(k *scriptedKMS) { k.refuses, k.delay = altered, time.Millisecond })
		pass(poll)
		kms.fail(core.ErrUnavailable)
		pass(time.Minute)
		kms.fail(nil)
		before := kms.count("unwrap")
		pass(10 * time.Second) // an outage ended, so the wrap is tried
		kms.fail(core.ErrUnavailable)
		pass(12 * time.Minute)
		if n := kms.count("unwrap") - before; n == 0 || n > 20 {
			t.Errorf("%d unwraps", n)
		}
		if n := r.Status().Unlocked; n != 0 {
			t.Errorf("%d data keys in memory after the outage budget", n)
		}
	})
}
