package keyring_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// kekIDs returns the KEK IDs of a data key's wraps.
func kekIDs(k keyring.DataKeyState) (ids []string) {
	for _, w := range k.Wraps {
		ids = append(ids, string(w.KEKID))
	}
	return ids
}

func keepNone(core.KEKID) bool { return false }

// A KEK that rotates inside its KMS gets a wrap under its new version by itself;
// the older one stays until it is pruned, and then what was sealed still opens.
func TestAKEKVersionThatRotated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		ring := mustStart(t, kms, store, keyring.Options{})
		record := mustSeal(t, ring, "token")
		kms.script(func(k *scriptedKMS) { k.version = "2" })
		pass(time.Minute)
		if got := strings.Join(kekIDs(store.primary()), " "); got != "scripted:a#1 scripted:a#2" {
			t.Fatalf("after the rotation the wraps are %s", got)
		}
		calls := kms.count("wrap")
		pass(time.Minute)
		if n := kms.count("wrap") - calls; n != 0 {
			t.Errorf("%d further wraps, though nothing is missing", n)
		}
		removed, err := ring.Prune(t.Context(), keepNone)
		if err != nil || len(removed) != 1 || removed[0].KEKID != "scripted:a#1" {
			t.Fatalf("Prune = %v, %v", removed, err)
		}
		mustOpen(t, mustStart(t, kms, store, keyring.Options{}), record, "token", false)
	})
}

// A provider that names one version and wraps under another is tried with patience.
func TestAKEKVersionThatDoesNotWrapYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		mustStart(t, kms, store, keyring.Options{})
		kms.script(func(k *scriptedKMS) { k.version, k.wrapsUnder = "2", "1" })
		pass(10 * time.Minute)
		if n := kms.count("wrap"); n < 2 || n > 40 {
			t.Errorf("%d wraps in ten minutes", n)
		}
		kms.script(func(k *scriptedKMS) { k.wrapsUnder = "" })
		pass(2 * time.Minute)
		if got := kekIDs(store.primary()); len(got) != 2 {
			t.Errorf("the wraps are %v", got)
		}
	})
}

// With NoAutoRewrap an instance adds nothing by itself and says what to run.
func TestRewrapByCommandOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, store := newKMS("a"), newKMS("b"), newStore()
		record := mustSeal(t, mustStart(t, a, store, keyring.Options{}), "token")
		opts := keyring.Options{Previous: []core.KeyProvider{a}, NoAutoRewrap: true}
		ring, err := start(t, b, store, opts)
		if !errors.Is(err, core.ErrKeyMismatch) || !strings.Contains(err.Error(), "lockwood key rewrap") {
			t.Fatalf("Start: %v", err)
		}
		mustOpen(t, ring, record, "token", false)
		if added, err := ring.Rewrap(t.Context()); err != nil || len(added) != 1 || added[0] != b.kekID() {
			t.Fatalf("Rewrap = %v, %v", added, err)
		}
		mustSeal(t, ring, "another")
		if added, err := ring.Rewrap(t.Context()); err != nil || len(added) != 0 {
			t.Errorf("a second Rewrap = %v, %v", added, err)
		}
		if n := b.count("wrap") + b.count("unwrap"); n > 3 {
			t.Errorf("%d crypto calls for one data key", n)
		}
	})
}

// A wrap that does not come back from the store as it was is not counted on.
func TestAWrapThatDoesNotComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, store := newKMS("a"), newKMS("b"), newStore()
		record := mustSeal(t, mustStart(t, a, store, keyring.Options{}), "token")
		store.edit(func(s *memoryStore) { s.corrupt = true })
		ring, err := start(t, b, store, keyring.Options{Previous: []core.KeyProvider{a}})
		if err == nil {
			t.Fatal("the ring seals under a wrap that does not unwrap")
		}
		if got := kekIDs(store.primary()); len(got) != 1 || got[0] != string(a.kekID()) {
			t.Errorf("the wraps are %v", got)
		}
		mustOpen(t, ring, record, "token", false)
	})
}

func TestPruneKeepsWhatIsNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, r, store := newKMS("a"), newKMS("b"), newKMS("r"), newStore()
		mustStart(t, a, store, keyring.Options{})
		opts := keyring.Options{Previous: []core.KeyProvider{a}, Recovery: []keyring.RecoveryKEK{keyring.NewRecoveryKEK(r)}}
		ring := mustStart(t, b, store, opts)
		if _, err := ring.Rewrap(t.Context()); err != nil {
			t.Fatal(err)
		}
		removed, err := ring.Prune(t.Context(), func(id core.KEKID) bool { return id == a.kekID() })
		if err != nil || len(removed) != 0 {
			t.Fatalf("with a kept: %v, %v", removed, err)
		}
		b.script(func(k *scriptedKMS) { k.unwraps = core.ErrUnavailable })
		if _, err := ring.Prune(t.Context(), keepNone); !errors.Is(err, core.ErrUnavailable) {
			t.Fatalf("with a current wrap that cannot be proven: %v", err)
		}
		if got := kekIDs(store.primary()); len(got) != 3 {
			t.Fatalf("the wraps are %v", got)
		}
		b.script(func(k *scriptedKMS) { k.unwraps = nil })
		if removed, err := ring.Prune(t.Context(), keepNone); err != nil || len(removed) != 1 || removed[0].KEKID != a.kekID() {
			t.Fatalf("Prune = %v, %v", removed, err)
		}
	})
}

// A data key is not primary before the recovery KEKs wrap it too.
func TestANewDataKeyIsWrappedForRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, r, store := newKMS("a"), newKMS("r"), newStore()
		opts := keyring.Options{Recovery: []keyring.RecoveryKEK{keyring.NewRecoveryKEK(r)}}
		r.fail(core.ErrKeyDenied)
		ring, err := start(t, a, store, opts)
		if !errors.Is(err, core.ErrUnavailable) || errors.Is(err, core.ErrKeyDenied) || store.count("insert") != 0 {
			t.Fatalf("with a recovery KEK that refuses: %v", err)
		}
		ring.Close()
		r.fail(nil)
		r.script(func(k *scriptedKMS) { k.unwraps = core.ErrKeyDenied }) // it may only wrap
		ring = mustStart(t, a, store, opts)
		if got := strings.Join(kekIDs(store.primary()), " "); got != "scripted:a#1 scripted:r#1" {
			t.Errorf("the wraps are %s", got)
		}
		r.fail(core.ErrUnavailable)
		mustSeal(t, ring, "token") // what exists goes on
	})
}

// An instance that gets a recovery KEK wraps the data keys that exist, and says
// which are not protected until then.
func TestARecoveryKEKThatIsAdded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, r, store := newKMS("a"), newKMS("r"), newStore()
		first := mustStart(t, a, store, keyring.Options{})
		mustSeal(t, first, "token")
		if err := first.Roll(t.Context()); err != nil {
			t.Fatal(err)
		}
		opts := keyring.Options{Recovery: []keyring.RecoveryKEK{keyring.NewRecoveryKEK(r)}}
		r.fail(core.ErrUnavailable)
		ring := mustStart(t, a, store, opts)
		if got := ring.Status().Unprotected; len(got) != 2 {
			t.Errorf("unprotected are %v", got)
		}
		r.fail(nil)
		pass(2 * time.Minute)
		if got := ring.Status().Unprotected; len(got) != 0 {
			t.Errorf("unprotected are still %v", got)
		}
		a.script(func(k *scriptedKMS) { k.calls["unwrap"] = 0 })
		mustStart(t, a, store, opts)
		synctest.Wait()
		if n := a.count("unwrap"); n != 1 {
			t.Errorf("a restart costs %d unwraps", n)
		}
	})
}

// When the KEK is lost the recovery KEK brings everything back: what was sealed
// opens, nothing is ever sealed again under what recovery restored, not even if
// somebody with the database makes it the primary.
func TestRecover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, r, b, store := newKMS("a"), newKMS("r"), newKMS("b"), newStore()
		first := mustStart(t, a, store, keyring.Options{Recovery: []keyring.RecoveryKEK{keyring.NewRecoveryKEK(r)}})
		record := mustSeal(t, first, "token")
		old := keyIDOf(t, record)
		first.Close()

		ring, err := start(t, b, store, keyring.Options{NoAutoRewrap: true})
		if !errors.Is(err, core.ErrKeyMismatch) {
			t.Fatalf("with another KEK: %v", err)
		}
		drill, err := ring.Examine(t.Context(), []core.KeyProvider{r})
		if err != nil || len(drill) != 1 || drill[0].Err != nil || drill[0].Via != r.kekID() || store.count("insert") != 1 {
			t.Fatalf("Examine = %+v, %v", drill, err)
		}
		if drill, _ := ring.Examine(t.Context(), []core.KeyProvider{newKMS("x")}); drill[0].Err == nil {
			t.Error("Examine with a foreign identity finds no fault")
		}
		done, err := ring.Recover(t.Context(), []core.KeyProvider{r})
		if err != nil || len(done) != 1 || done[0].Err != nil {
			t.Fatalf("Recover = %+v, %v", done, err)
		}
		mustOpen(t, ring, record, "token", true)
		if id := keyIDOf(t, mustSeal(t, ring, "new")); id == old {
			t.Error("a recovered data key seals")
		}
		if done, err := ring.Recover(t.Context(), []core.KeyProvider{r}); err != nil || len(done) != 0 {
			t.Errorf("a second Recover = %+v, %v", done, err)
		}

		store.edit(func(s *memoryStore) { // an attacker with the database
			for i := range s.state.DataKeys {
				k := &s.state.DataKeys[i]
				k.Primary = k.ID == old
			}
		})
		fresh := mustStart(t, b, store, keyring.Options{})
		if id := keyIDOf(t, mustSeal(t, fresh, "newer")); id == old {
			t.Error("a recovered data key seals once it is made the primary")
		}
		mustOpen(t, fresh, record, "token", true)
	})
}

// After a KEK was named compromised the data keys that it wraps are rolled, get no
// wrap, and no data key is wrapped under it for anyone.
func TestCompromised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, store := newKMS("a"), newKMS("b"), newStore()
		older := mustStart(t, a, store, keyring.Options{})
		record := mustSeal(t, older, "token")
		old := keyIDOf(t, record)
		if err := store.NameCompromised(t.Context(), []string{a.kekID().Key()}); err != nil {
			t.Fatal(err)
		}
		var gone atomic.Bool
		opts := keyring.Options{Previous: []core.KeyProvider{a}}
		opts.Live = func(context.Context) ([]keyring.LiveInstance, error) {
			if gone.Load() {
				return nil, nil
			}
			return []keyring.LiveInstance{{Name: "older-host", KEKIDs: []core.KEKID{a.kekID()}}}, nil
		}
		newer, err := start(t, b, store, opts)
		if !errors.Is(err, core.ErrUnavailable) || !strings.Contains(err.Error(), "older-host") {
			t.Fatalf("while an instance needs the compromised KEK: %v", err)
		}
		mustOpen(t, newer, record, "token", false)
		gone.Store(true)
		pass(time.Minute)
		if id := keyIDOf(t, mustSeal(t, newer, "new")); id == old {
			t.Error("an exposed data key still seals")
		}
		for _, k := range store.snapshot().DataKeys {
			if ids := kekIDs(k); len(ids) != 1 || (k.ID == old) != (ids[0] == string(a.kekID())) {
				t.Errorf("data key %s is wrapped under %v", k.ID, ids)
			}
		}
		if err := older.Roll(t.Context()); err == nil {
			t.Error("an instance makes a data key under the compromised KEK")
		}
	})
}

func TestMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		ring := mustStart(t, kms, store, keyring.Options{MaxAge: time.Hour})
		before := ring.Status().Primary
		pass(50 * time.Minute)
		if ring.Status().Primary != before {
			t.Fatal("the ring rolls too early")
		}
		pass(11 * time.Minute)
		if ring.Status().Primary == before {
			t.Fatal("the ring does not roll by age")
		}
		pass(30 * time.Minute)
		if n := len(store.snapshot().DataKeys); n != 2 {
			t.Errorf("there are %d data keys", n)
		}
	})
}

// A store whose clock is far behind, or whose times were edited, makes every data
// key old at once; it gets a new one an hour, and not one at every poll.
func TestMaxAgeWhereClocksDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		store.clockBehind = 365 * 24 * time.Hour
		ring := mustStart(t, kms, store, keyring.Options{MaxAge: time.Minute, PollInterval: time.Minute})
		pass(2*time.Hour + 30*time.Minute)
		if n := len(store.snapshot().DataKeys); n != 3 {
			t.Errorf("%d data keys after two hours and a half", n)
		}
		if err := ring.Roll(t.Context()); err != nil {
			t.Errorf("Roll: %v", err)
		}
		if n := len(store.snapshot().DataKeys); n != 4 {
			t.Errorf("%d data keys after a roll by command", n)
		}
	})
}

// A destruction whose answer was lost is in the audit log too.
func TestARemovalWhoseAnswerWasLostIsAudited(t *testing.T) {
	for _, c := range []struct {
		answer error
		line   string
	}{
		{nil, ""}, {core.ErrOutcomeUnknown, "outcome=unknown"}, {core.ErrStoreUnavailable, "no line"},
	} {
		var log bytes.Buffer
		kms, store := newKMS("a"), &lossyStore{memoryStore: newStore(), answer: c.answer}
		ring := mustStart(t, kms, store, keyring.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		record := mustSeal(t, ring, "token")
		if err := ring.Roll(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := ring.Destroy(t.Context(), keyIDOf(t, record)); !errors.Is(err, c.answer) {
			t.Errorf("Destroy: %v, want %v", err, c.answer)
		}
		ring.Close() // so that nothing logs any more
		_, line, logged := strings.Cut(log.String(), "data_key_destroyed")
		if logged != (c.line != "no line") || logged && strings.Contains(line, "outcome") != (c.line != "") {
			t.Errorf("%v: the log is\n%s", c.answer, &log)
		}
	}
}

// lossyStore destroys, and answers otherwise.
type lossyStore struct {
	*memoryStore
	answer error
}

func (s *lossyStore) DestroyDataKey(ctx context.Context, id envelope.KeyID) (int64, error) {
	n, err := s.memoryStore.DestroyDataKey(ctx, id)
	return n, errors.Join(err, s.answer)
}

func TestDestroy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		ring := mustStart(t, kms, store, keyring.Options{})
		record := mustSeal(t, ring, "token")
		if _, err := ring.Destroy(t.Context(), keyIDOf(t, record)); !errors.Is(err, keyring.ErrConflict) {
			t.Errorf("destroying the primary: %v", err)
		}
		if err := ring.Roll(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := ring.Destroy(t.Context(), keyIDOf(t, record)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ring.Open(t.Context(), nil, record, []byte("aad")); !errors.Is(err, core.ErrInvalidCiphertext) {
			t.Errorf("opening under a destroyed data key: %v", err)
		}
		if _, err := ring.Destroy(t.Context(), envelope.KeyID{1}); !errors.Is(err, keyring.ErrNotEnabled) {
			t.Errorf("destroying an unknown key: %v", err)
		}
	})
}
