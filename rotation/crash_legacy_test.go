package rotation_test

import (
	"context"
	"errors"
	"testing"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/rotation"
	"github.com/lockwood-kms/lockwood/store"
)

// sealLegacy seals the legacy record, so that legacy can be closed.
func sealLegacy(t *testing.T, _ *crashVault, s store.Store) {
	t.Helper()
	i := asBefore().start(t, s)
	defer i.ring.Close()
	if _, err := i.rotator.Reseal(t.Context(), i.ring.Status().Primary, rotation.RotateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// closeLegacy is sealLegacy, and closes.
func closeLegacy(t *testing.T, v *crashVault, s store.Store) {
	t.Helper()
	sealLegacy(t, v, s)
	if _, err := s.CloseLegacy(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func runClose(ctx context.Context, i *instance) error {
	_, err := i.store.CloseLegacy(ctx)
	return err
}

func runOpen(ctx context.Context, i *instance) error { return i.store.OpenLegacy(ctx) }

// refusesLegacy writes a legacy record, and takes it away again.
func (v *crashVault) refusesLegacy(t *testing.T, i *instance) bool {
	t.Helper()
	err := i.store.Upsert(t.Context(), legacyRow(t, scratchUser), envelope.KeyID{}, 0)
	if err != nil && !errors.Is(err, store.ErrLegacyClosed) {
		t.Fatalf("%s: writing a legacy record: %v", v.where, err)
	}
	if _, err := i.store.Delete(t.Context(), scratchUser, "server"); err != nil {
		t.Fatal(err)
	}
	return err != nil
}

// oneWord holds a store that says it is closed to refusing legacy records. One that
// refuses them and does not say so yet is on its way.
func oneWord(t *testing.T, v *crashVault, i *instance) {
	t.Helper()
	readable(t, v, i)
	state, err := i.store.LoadRing(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if state.LegacyClosed && !v.refusesLegacy(t, i) {
		t.Errorf("%s: the store says that it is closed, and takes a legacy record", v.where)
	}
}

func judgeClosed(t *testing.T, v *crashVault, i *instance) { judgeLegacy(t, v, i, true) }
func judgeOpened(t *testing.T, v *crashVault, i *instance) { judgeLegacy(t, v, i, false) }

// judgeLegacy: the store is closed, or open, in word and deed; format 1 it takes
// either way.
func judgeLegacy(t *testing.T, v *crashVault, i *instance, closed bool) {
	t.Helper()
	state, err := i.store.LoadRing(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if refuses := v.refusesLegacy(t, i); state.LegacyClosed != closed || refuses != closed {
		t.Errorf("%s: the store says that it is closed: %t, and refuses a legacy record: %t; want %t", v.where, state.LegacyClosed, refuses, closed)
	}
	i.deposit(t, scratchUser, "server", "token")
	if _, err := i.store.Delete(t.Context(), scratchUser, "server"); err != nil {
		t.Fatal(err)
	}
}

func runToLegacy(ctx context.Context, i *instance) error {
	_, err := i.rotator.Reseal(ctx, rotation.Target{}, rotation.RotateOptions{})
	return err
}

// judgeToLegacy: upstream, which has its env key and nothing else, opens every
// token.
func judgeToLegacy(t *testing.T, v *crashVault, i *instance) {
	t.Helper()
	v.enabled(t, i)
	v.wantUnder(t, i, envelope.KeyID{})
	upstream := envKeys(t, keyA).LegacyKey()
	for u := range v.rows {
		row, err := i.store.Get(t.Context(), u, "server")
		if err != nil {
			t.Fatal(err)
		}
		if token, err := upstream.Open(nil, row.RefreshTokenEnc); !v.broken[u] && (err != nil || string(token) != crashToken(u)) {
			t.Errorf("%s: upstream does not open the token of user %d: %v", v.where, u, err)
		}
	}
}
