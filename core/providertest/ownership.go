package providertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/lockwood-kms/lockwood/core"
)

var ownershipChecks = []Check{
	{"arguments-not-modified", "Data keys, wraps and aad that are passed in stay as they are.", argumentsNotModified},
	{"arguments-not-retained", "What the caller does with its data key, wrap or aad afterwards changes no result.", argumentsNotRetained},
	{"results-belong-to-caller", "A data key or wrap that was returned may be overwritten without changing a later result.", resultsBelongToCaller},
	{"concurrent-use", "Many callers at once each get their own data key back.", concurrentUse},
}

func argumentsNotModified(ctx context.Context, s *Subject) error {
	dataKey, aad := testDataKey(), slices.Clone(testAAD)
	w, err := s.Provider.WrapDataKey(ctx, dataKey, aad)
	if err != nil {
		return fmt.Errorf("wrapping: %w", err)
	}
	wrapped := bytes.Clone(w.Wrapped)
	if _, err := s.Provider.UnwrapDataKey(ctx, w, aad); err != nil {
		return fmt.Errorf("unwrapping: %w", err)
	}
	switch {
	case !bytes.Equal(dataKey, testDataKey()):
		return errors.New("wrapping changed the data key passed to it")
	case !bytes.Equal(w.Wrapped, wrapped):
		return errors.New("unwrapping changed the wrap passed to it")
	case !slices.Equal(aad, testAAD):
		return errors.New("the aad passed in was changed")
	}
	return nil
}

func argumentsNotRetained(ctx context.Context, s *Subject) error {
	dataKey, aad := testDataKey(), slices.Clone(testAAD)
	w, err := s.Provider.WrapDataKey(ctx, dataKey, aad)
	if err != nil {
		return fmt.Errorf("wrapping: %w", err)
	}
	clear(dataKey)
	clear(aad)
	kept := bytes.Clone(w.Wrapped)
	for range 2 {
		mine := core.WrappedKey{KEKID: w.KEKID, Wrapped: bytes.Clone(kept)}
		if err := unwrapsTo(ctx, s.Provider, mine, testDataKey()); err != nil {
			return err
		}
		clear(mine.Wrapped)
		if err := refused(ctx, s.Provider, mine, testAAD, "a wrap that the caller has overwritten"); err != nil {
			return err
		}
	}
	return nil
}

func resultsBelongToCaller(ctx context.Context, s *Subject) error {
	first, err := s.Provider.GenerateDataKey(ctx, testAAD)
	if err != nil {
		return fmt.Errorf("generating: %w", err)
	}
	plaintext, wrap := bytes.Clone(first.Plaintext), core.WrappedKey{KEKID: first.Wrapped.KEKID, Wrapped: bytes.Clone(first.Wrapped.Wrapped)}
	clear(first.Plaintext)
	clear(first.Wrapped.Wrapped)
	for range 2 {
		got, err := s.Provider.UnwrapDataKey(ctx, wrap, testAAD)
		if err != nil {
			return fmt.Errorf("unwrapping: %w", err)
		}
		if !bytes.Equal(got, plaintext) {
			return errors.New("a data key that the caller cleared came back cleared")
		}
		clear(got)
	}
	return nil
}

func concurrentUse(ctx context.Context, s *Subject) error {
	const callers = 8
	errs := make([]error, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() { errs[i] = useOnce(ctx, s.Provider, byte(i)) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// useOnce goes through every method with a data key and aad of its own.
func useOnce(ctx context.Context, p core.KeyProvider, n byte) error {
	dataKey := bytes.Repeat([]byte{n + 1}, core.DataKeySize)
	aad := core.WrapAAD("store", fmt.Sprint(n))
	w, err := p.WrapDataKey(ctx, dataKey, aad)
	if err != nil {
		return fmt.Errorf("wrapping: %w", err)
	}
	dk, err := p.GenerateDataKey(ctx, aad)
	if err != nil {
		return fmt.Errorf("generating: %w", err)
	}
	if _, err := p.Status(ctx); err != nil {
		return fmt.Errorf("asking for status: %w", err)
	}
	for _, pair := range []core.DataKey{{Plaintext: dataKey, Wrapped: w}, dk} {
		got, err := p.UnwrapDataKey(ctx, pair.Wrapped, aad)
		if err != nil {
			return fmt.Errorf("unwrapping: %w", err)
		}
		if !bytes.Equal(got, pair.Plaintext) {
			return errors.New("a caller got another one's data key")
		}
	}
	return nil
}
