package keyring_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

const (
	envValue   = "b9c37dcc6d217ec179ecafc9038c6ae32a9892c9144cc2ccf7fd1d4b77249144"
	otherValue = "2b8697a78b4b52a7cc26f007dc30e55ed2fd003d470a3dac47629fc9e7929fd5"
)

func TestAStoreOfLegacyRecordsWantsItsKey(t *testing.T) {
	right, other := legacyOf(t, envValue), legacyOf(t, otherValue)
	written := right.keys[0].Seal(nil, []byte("token"))
	broken := append([]byte(nil), written...)
	broken[5] ^= 1
	tests := map[string]struct {
		legacy  [][]byte
		source  keyring.LegacySource
		wantErr error
	}{
		"its key":                {[][]byte{written}, right, nil},
		"one of several opens":   {[][]byte{broken, written}, right, nil},
		"its key as a previous":  {[][]byte{written}, legacyOf(t, otherValue, envValue), nil},
		"another key":            {[][]byte{written, written}, other, core.ErrKeyMismatch},
		"no key":                 {[][]byte{written}, nil, core.ErrKeyMismatch},
		"nothing there, any key": {nil, other, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newStore()
				store.legacy = test.legacy
				_, err := start(t, newKMS("a"), store, keyring.Options{Legacy: test.source})
				if !errors.Is(err, test.wantErr) {
					t.Fatalf("Start = %v, want %v", err, test.wantErr)
				}
				if made := len(store.snapshot().DataKeys) == 1; made != (test.wantErr == nil) {
					t.Errorf("a data key was made: %v", made)
				}
			})
		})
	}
}

func TestLegacyRecordsOpenAndAreStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, store := legacyOf(t, envValue), newStore()
		record := source.keys[0].Seal(nil, []byte("token"))
		r := mustStart(t, newKMS("a"), store, keyring.Options{Legacy: source})
		mustOpen(t, r, record, "token", true)

		refusing := mustStart(t, newKMS("a"), newStore(), keyring.Options{Legacy: source, RefuseLegacy: true})
		if _, _, err := refusing.Open(t.Context(), nil, record, nil); !errors.Is(err, core.ErrInvalidCiphertext) {
			t.Errorf("Open = %v, want ErrInvalidCiphertext", err)
		}
		store.edit(func(s *memoryStore) { s.state.LegacyClosed = true })
		pass(3 * time.Second)
		if _, _, err := r.Open(t.Context(), nil, record, nil); !errors.Is(err, core.ErrInvalidCiphertext) {
			t.Errorf("in a closed store, Open = %v, want ErrInvalidCiphertext", err)
		}
		keyless := mustStart(t, newKMS("a"), newStore(), keyring.Options{})
		if _, _, err := keyless.Open(t.Context(), nil, record, nil); !errors.Is(err, core.ErrKeyMissing) || !errors.Is(err, keyring.ErrNoLegacyKey) {
			t.Errorf("without an env key, Open = %v, want ErrNoLegacyKey, which is ErrKeyMissing", err)
		}
		kms := newKMS("a")
		kms.fail(core.ErrKeyMissing)
		without, _ := start(t, kms, newStore(), keyring.Options{})
		if _, _, err := without.Open(t.Context(), nil, record, nil); !errors.Is(err, core.ErrKeyMissing) || errors.Is(err, keyring.ErrNoLegacyKey) {
			t.Errorf("without any key, Open = %v, want ErrKeyMissing", err)
		}
		kms.fail(core.ErrUnavailable)
		silent, _ := start(t, kms, newStore(), keyring.Options{})
		if _, _, err := silent.Open(t.Context(), nil, record, nil); !errors.Is(err, core.ErrKeyMissing) || errors.Is(err, keyring.ErrNoLegacyKey) {
			t.Errorf("with a provider that has not named its KEK, Open = %v, want ErrKeyMissing", err)
		}
		kms.fail(nil)
		pass(time.Minute)
		if _, _, err := silent.Open(t.Context(), nil, record, nil); !errors.Is(err, keyring.ErrNoLegacyKey) {
			t.Errorf("once it has, Open = %v, want ErrNoLegacyKey", err)
		}
	})
}

func TestWritingLegacyStillProvesTheKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, store, source := newKMS("a"), newStore(), legacyOf(t, envValue)
		r := mustStart(t, kms, store, keyring.Options{Legacy: source, WriteLegacy: true})
		record := mustSeal(t, r, "token")
		if got, err := source.keys[0].Open(nil, record); err != nil || string(got) != "token" {
			t.Fatalf("upstream would read %q, %v", got, err)
		}
		if len(store.snapshot().DataKeys) != 1 {
			t.Error("no data key proves which key this store has")
		}
		other, err := start(t, newKMS("b"), store, keyring.Options{Legacy: legacyOf(t, otherValue), WriteLegacy: true})
		if !errors.Is(err, core.ErrKeyMismatch) {
			t.Errorf("Start with another key = %v, want ErrKeyMismatch", err)
		}
		if _, err := other.Seal(t.Context(), nil, []byte("x"), nil); !errors.Is(err, core.ErrKeyMismatch) {
			t.Errorf("Seal with another key = %v, want ErrKeyMismatch", err)
		}
		store.edit(func(s *memoryStore) { s.state.LegacyClosed = true })
		if _, err := start(t, kms, store, keyring.Options{Legacy: source, WriteLegacy: true}); !errors.Is(err, keyring.ErrLegacyClosed) {
			t.Errorf("Start on a closed store = %v, want ErrLegacyClosed", err)
		}
		if _, err := start(t, kms, newStore(), keyring.Options{WriteLegacy: true}); !errors.Is(err, core.ErrKeyMissing) {
			t.Errorf("Start without an env key = %v, want ErrKeyMissing", err)
		}
	})
}
