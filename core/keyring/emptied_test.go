package keyring_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/core/keyring"
)

// A database that forgets every data key has few made, as one has that forgets which is
// the primary.
func TestAStoreThatIsEmptiedAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store := newKMS("a"), newStore()
		r := mustStart(t, kms, store, keyring.Options{})
		for range 60 * 60 {
			store.edit(func(s *memoryStore) { s.state.DataKeys = nil })
			pass(time.Second)
			_, _ = r.Seal(t.Context(), nil, []byte("x"), nil)
		}
		if n := kms.count("generate"); n > 16+60+2 {
			t.Errorf("%d data keys made in an hour", n)
		}
	})
}
