package providertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/lockwood-kms/lockwood/core"
)

var basicChecks = []Check{
	{"generate-is-fresh", "Two generated data keys are 32 bytes each, are not zero and differ, and their wraps unwrap to them.", generateIsFresh},
	{"wrap-and-unwrap", "A data key that was wrapped unwraps to itself.", wrapAndUnwrap},
	{"wrap-checks-size", "Only a data key of 32 bytes is wrapped.", wrapChecksSize},
	{"wrap-is-randomised", "Wrapping one data key twice gives different bytes, so that wraps do not show which data keys are the same.", wrapIsRandomised},
	{"results-within-limits", "KEK IDs and wraps are not empty and keep to core.MaxKEKIDSize and core.MaxWrappedSize.", resultsWithinLimits},
	{"status-names-wrapping-kek", "Status names the KEK ID that wraps and generates now.", statusNamesWrappingKEK},
	{"status-releases-nothing", "Status shows no data key.", statusReleasesNothing},
}

// testAAD is the aad of the checks, in the form of a store's.
var testAAD = core.WrapAAD("3f2b8a54-0c7e-4d0b-9a57-5f1c6d2e8b90", "7")

// testDataKey is a data key that is recognised when it leaks.
func testDataKey() []byte {
	k := make([]byte, core.DataKeySize)
	for i := range k {
		k[i] = byte(0xa5 ^ 7*i)
	}
	return k
}

// wrapTest wraps testDataKey.
func wrapTest(ctx context.Context, p core.KeyProvider) (core.WrappedKey, error) {
	w, err := p.WrapDataKey(ctx, testDataKey(), testAAD)
	if err != nil {
		return w, fmt.Errorf("wrapping: %w", err)
	}
	return w, nil
}

// unwrapsTo reports, as an error, that w does not unwrap to want.
func unwrapsTo(ctx context.Context, p core.KeyProvider, w core.WrappedKey, want []byte) error {
	got, err := p.UnwrapDataKey(ctx, w, testAAD)
	if err != nil {
		return fmt.Errorf("unwrapping: %w", err)
	}
	if !bytes.Equal(got, want) {
		return errors.New("unwrapping gave another data key")
	}
	return nil
}

func generateIsFresh(ctx context.Context, s *Subject) error {
	seen := [][]byte{make([]byte, core.DataKeySize)}
	for range 2 {
		dk, err := s.Provider.GenerateDataKey(ctx, testAAD)
		if err != nil {
			return fmt.Errorf("generating: %w", err)
		}
		if len(dk.Plaintext) != core.DataKeySize {
			return fmt.Errorf("generated %d bytes, want %d", len(dk.Plaintext), core.DataKeySize)
		}
		for _, other := range seen {
			if bytes.Equal(dk.Plaintext, other) {
				return errors.New("a generated data key is zero, or the same as another")
			}
		}
		seen = append(seen, bytes.Clone(dk.Plaintext))
		if err := unwrapsTo(ctx, s.Provider, dk.Wrapped, dk.Plaintext); err != nil {
			return err
		}
	}
	return nil
}

func wrapAndUnwrap(ctx context.Context, s *Subject) error {
	w, err := wrapTest(ctx, s.Provider)
	if err != nil {
		return err
	}
	return unwrapsTo(ctx, s.Provider, w, testDataKey())
}

func wrapChecksSize(ctx context.Context, s *Subject) error {
	for _, size := range []int{0, 1, core.DataKeySize - 1, core.DataKeySize + 1, 2 * core.DataKeySize} {
		if _, err := s.Provider.WrapDataKey(ctx, make([]byte, size), testAAD); err == nil {
			return fmt.Errorf("a data key of %d bytes was wrapped", size)
		}
	}
	return nil
}

func wrapIsRandomised(ctx context.Context, s *Subject) error {
	a, err := wrapTest(ctx, s.Provider)
	if err != nil {
		return err
	}
	b, err := wrapTest(ctx, s.Provider)
	if err != nil {
		return err
	}
	if bytes.Equal(a.Wrapped, b.Wrapped) {
		return errors.New("two wraps of one data key are the same")
	}
	return nil
}

func resultsWithinLimits(ctx context.Context, s *Subject) error {
	w, err := wrapTest(ctx, s.Provider)
	if err != nil {
		return err
	}
	dk, err := s.Provider.GenerateDataKey(ctx, testAAD)
	if err != nil {
		return fmt.Errorf("generating: %w", err)
	}
	for _, w := range []core.WrappedKey{w, dk.Wrapped} {
		if n := len(w.KEKID); n == 0 || n > core.MaxKEKIDSize {
			return fmt.Errorf("a KEK ID has %d bytes", n)
		}
		if w.KEKID.Key() == "" {
			return errors.New("the key part of the KEK ID is empty")
		}
		if n := len(w.Wrapped); n == 0 || n > core.MaxWrappedSize {
			return fmt.Errorf("a wrap has %d bytes", n)
		}
	}
	return nil
}

func statusNamesWrappingKEK(ctx context.Context, s *Subject) error {
	st, err := s.Provider.Status(ctx)
	if err != nil {
		return fmt.Errorf("asking for status: %w", err)
	}
	w, err := wrapTest(ctx, s.Provider)
	if err != nil {
		return err
	}
	dk, err := s.Provider.GenerateDataKey(ctx, testAAD)
	if err != nil {
		return fmt.Errorf("generating: %w", err)
	}
	if st.KEKID != w.KEKID || st.KEKID != dk.Wrapped.KEKID {
		return fmt.Errorf("status names %q, but %q wraps and %q generates", st.KEKID, w.KEKID, dk.Wrapped.KEKID)
	}
	return nil
}

func statusReleasesNothing(ctx context.Context, s *Subject) error {
	w, err := wrapTest(ctx, s.Provider)
	if err != nil {
		return err
	}
	if err := unwrapsTo(ctx, s.Provider, w, testDataKey()); err != nil {
		return err
	}
	st, err := s.Provider.Status(ctx)
	if err != nil {
		return fmt.Errorf("asking for status: %w", err)
	}
	for _, text := range append(st.Warnings, string(st.KEKID)) {
		if shows(text, testDataKey()) {
			return errors.New("the status shows a data key")
		}
	}
	return nil
}
