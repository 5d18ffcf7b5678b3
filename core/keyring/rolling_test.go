package keyring_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// In a rolling deployment the data key that the newer instance makes is one that the
// older instance can use as well; afterwards the old KEK gets none.
func TestADataKeyMadeInTheMiddleOfARollingDeployment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, store := newKMS("a"), newKMS("b"), newStore()
		older := mustStart(t, a, store, keyring.Options{})
		live := []keyring.LiveInstance{{Name: "older", KEKIDs: []core.KEKID{older.Status().KEKID}}}
		newer := mustStart(t, b, store, keyring.Options{
			Previous: []core.KeyProvider{a},
			Live:     func(context.Context) ([]keyring.LiveInstance, error) { return live, nil },
		})
		if err := newer.Roll(t.Context()); err != nil {
			t.Fatal(err)
		}
		record := mustSeal(t, newer, "token")
		if err := older.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, _, err := older.Open(t.Context(), nil, record, []byte("aad")); err != nil {
			t.Errorf("the older instance, of what the newer one sealed: %v", err)
		}
		if older.Status().Primary != newer.Status().Primary || older.Status().Err != nil {
			t.Errorf("the older instance: %+v", older.Status())
		}

		live = []keyring.LiveInstance{{Name: "newer", KEKIDs: []core.KEKID{newer.Status().KEKID}}} // the older one has gone
		wraps := a.count("wrap")
		if err := newer.Roll(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := a.count("wrap") - wraps; n != 0 {
			t.Errorf("the old KEK wrapped %d times though nobody needs it", n)
		}
	})
}

// A previous provider that refuses to wrap for an instance that lags behind keeps
// a new data key from being made, and says nothing of the current one: what is
// unlocked stays.
func TestAPreviousProviderThatRefusesEvictsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, store := newKMS("a"), newKMS("b"), newStore()
		older := mustStart(t, a, store, keyring.Options{})
		newer := mustStart(t, b, store, keyring.Options{
			Previous: []core.KeyProvider{a},
			Live: func(context.Context) ([]keyring.LiveInstance, error) {
				return []keyring.LiveInstance{{Name: "older", KEKIDs: []core.KEKID{older.Status().KEKID}}}, nil
			},
		})
		record := mustSeal(t, newer, "token")
		a.fail(core.ErrKeyDenied)
		if err := newer.Roll(t.Context()); !errors.Is(err, core.ErrUnavailable) || errors.Is(err, core.ErrKeyDenied) {
			t.Errorf("Roll: %v", err)
		}
		mustOpen(t, newer, record, "token", false)
		mustSeal(t, newer, "another")
	})
}
