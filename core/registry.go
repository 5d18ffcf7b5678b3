package core

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Factory makes the provider that a key URI names. It refuses unknown options,
// and does not reach for the network: a provider that cannot be reached answers
// ErrUnavailable when it is used, and does not fail to be made.
type Factory func(ctx context.Context, uri KeyURI) (KeyProvider, error)

// Registry knows the factories by the scheme of the key URI. The program that
// wires the providers fills it; nothing registers itself. The zero value is
// empty and ready. It is not safe for concurrent registration.
type Registry struct {
	factories map[string]Factory
}

// Register makes f responsible for scheme. It panics if the scheme is taken,
// which is a mistake in the wiring.
func (r *Registry) Register(scheme string, f Factory) {
	if _, taken := r.factories[scheme]; taken {
		panic("core: scheme registered twice: " + scheme)
	}
	if r.factories == nil {
		r.factories = make(map[string]Factory)
	}
	r.factories[scheme] = f
}

// Schemes returns the registered schemes in order.
func (r *Registry) Schemes() []string {
	return slices.Sorted(maps.Keys(r.factories))
}

// Open parses s and makes the provider it names. Its errors are configuration
// errors and say which schemes there are.
func (r *Registry) Open(ctx context.Context, s string) (KeyProvider, error) {
	uri, err := ParseKeyURI(s)
	if err != nil {
		return nil, err
	}
	f, ok := r.factories[uri.Scheme]
	if !ok {
		err := fmt.Errorf("opening key provider: no provider for scheme %q; known are %s", uri.Scheme, strings.Join(r.Schemes(), ", "))
		if meant, ok := MeantKeyURI(s); ok {
			err = fmt.Errorf("%w\nwrite %s", err, meant)
		}
		return nil, err
	}
	p, err := f(ctx, uri)
	if err != nil {
		return nil, fmt.Errorf("opening key provider %s: %w", uri.Scheme, err)
	}
	return p, nil
}
