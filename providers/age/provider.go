package age

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync/atomic"

	"github.com/lockwood-kms/lockwood/core"
)

// provider is a handle on an identity. No method asks anybody, so the context is
// looked at once, at the start.
type provider struct {
	identity *Identity
	closed   atomic.Bool
}

func (p *provider) ready(ctx context.Context) error {
	if p.closed.Load() {
		return fmt.Errorf("the provider is closed: %w", core.ErrUnavailable)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", core.ErrUnavailable, err)
	}
	return nil
}

// WrapDataKey implements core.Wrapper.
func (p *provider) WrapDataKey(ctx context.Context, dataKey []byte, aad core.AAD) (core.WrappedKey, error) {
	if err := p.ready(ctx); err != nil {
		return core.WrappedKey{}, fmt.Errorf("wrapping data key: %w", err)
	}
	return p.identity.recipient.WrapDataKey(ctx, dataKey, aad)
}

// GenerateDataKey implements core.KeyProvider.
func (p *provider) GenerateDataKey(ctx context.Context, aad core.AAD) (core.DataKey, error) {
	if err := p.ready(ctx); err != nil {
		return core.DataKey{}, fmt.Errorf("generating data key: %w", err)
	}
	plaintext := make([]byte, core.DataKeySize)
	rand.Read(plaintext) // never fails: the runtime ends the process instead
	w, err := p.identity.recipient.wrap(plaintext, aad)
	if err != nil {
		clear(plaintext)
		return core.DataKey{}, fmt.Errorf("generating data key: %w", err)
	}
	return core.DataKey{Plaintext: plaintext, Wrapped: w}, nil
}

// UnwrapDataKey implements core.KeyProvider. A data key that it returns may have
// been chosen by anyone who knows the recipient: the caller compares its key ID,
// and seals nothing under it.
func (p *provider) UnwrapDataKey(ctx context.Context, wrapped core.WrappedKey, aad core.AAD) ([]byte, error) {
	if err := p.ready(ctx); err != nil {
		return nil, fmt.Errorf("unwrapping data key: %w", err)
	}
	dataKey, err := p.identity.unwrap(wrapped, aad)
	if err != nil {
		return nil, fmt.Errorf("unwrapping data key: %w", err)
	}
	return dataKey, nil
}

// Status implements core.KeyProvider.
func (p *provider) Status(ctx context.Context) (core.Status, error) {
	if err := p.ready(ctx); err != nil {
		return core.Status{}, fmt.Errorf("asking for key status: %w", err)
	}
	return core.Status{KEKID: p.identity.KEKID()}, nil
}

// Close implements core.KeyProvider.
func (p *provider) Close() error {
	p.closed.Store(true)
	return nil
}
