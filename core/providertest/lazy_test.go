package providertest_test

import (
	"context"
	"errors"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/providertest"
)

// A lazy provider is the provider, opened once, by what uses it first.
func TestLazy(t *testing.T) {
	opened := 0
	p := providertest.Lazy(func(ctx context.Context) (core.KeyProvider, error) {
		opened++
		return &memory{kms: newKMS("one")}, ctx.Err()
	})
	if opened != 0 {
		t.Fatal("it is open before it is used")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Status(gone); err == nil {
		t.Error("a cancelled call succeeded")
	}
	aad := core.WrapAAD("store", "1")
	dk, err := p.GenerateDataKey(t.Context(), aad)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := p.UnwrapDataKey(t.Context(), dk.Wrapped, aad); err != nil || string(got) != string(dk.Plaintext) {
		t.Errorf("another data key, %v", err)
	}
	if _, err := p.WrapDataKey(t.Context(), dk.Plaintext, aad); err != nil {
		t.Error(err)
	}
	if err := p.Close(); err != nil || opened != 1 {
		t.Errorf("closing: %v; opened %d times", err, opened)
	}
	if _, err := p.Status(t.Context()); err == nil {
		t.Error("it goes on after Close")
	}
}

// What does not open fails in every call.
func TestLazyThatDoesNotOpen(t *testing.T) {
	broken := errors.New("broken")
	p := providertest.Lazy(func(context.Context) (core.KeyProvider, error) { return nil, broken })
	aad := core.WrapAAD("store", "1")
	_, generate := p.GenerateDataKey(t.Context(), aad)
	_, wrap := p.WrapDataKey(t.Context(), nil, aad)
	_, unwrap := p.UnwrapDataKey(t.Context(), core.WrappedKey{}, aad)
	_, status := p.Status(t.Context())
	for _, err := range []error{generate, wrap, unwrap, status, p.Close()} {
		if !errors.Is(err, broken) {
			t.Errorf("%v", err)
		}
	}
}
