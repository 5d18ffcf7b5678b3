package envkey

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/lockwood-kms/lockwood/core"
)

// provider is a handle on a KEK; closing it leaves the KEK to other handles. No
// method reaches further than a file's metadata, so the context is looked at
// once, at the start.
type provider struct {
	source source
	closed atomic.Bool
}

// ready returns the KEK, or why there is none at the moment.
func (p *provider) ready(ctx context.Context) (*kek, error) {
	if p.closed.Load() {
		return nil, fmt.Errorf("the provider is closed: %w", core.ErrUnavailable)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", core.ErrUnavailable, err)
	}
	m, err := p.source.material()
	if err != nil {
		return nil, err
	}
	return m.kek, nil
}

// WrapDataKey implements core.Wrapper.
func (p *provider) WrapDataKey(ctx context.Context, dataKey []byte, aad core.AAD) (core.WrappedKey, error) {
	k, err := p.ready(ctx)
	if err != nil {
		return core.WrappedKey{}, fmt.Errorf("wrapping data key: %w", err)
	}
	w, err := k.wrap(dataKey, aad)
	if err != nil {
		return core.WrappedKey{}, fmt.Errorf("wrapping data key: %w", err)
	}
	return w, nil
}

// GenerateDataKey implements core.KeyProvider.
func (p *provider) GenerateDataKey(ctx context.Context, aad core.AAD) (core.DataKey, error) {
	k, err := p.ready(ctx)
	if err != nil {
		return core.DataKey{}, fmt.Errorf("generating data key: %w", err)
	}
	dk, err := k.generate(aad)
	if err != nil {
		return core.DataKey{}, fmt.Errorf("generating data key: %w", err)
	}
	return dk, nil
}

// UnwrapDataKey implements core.KeyProvider.
func (p *provider) UnwrapDataKey(ctx context.Context, wrapped core.WrappedKey, aad core.AAD) ([]byte, error) {
	k, err := p.ready(ctx)
	if err != nil {
		return nil, fmt.Errorf("unwrapping data key: %w", err)
	}
	dataKey, err := k.unwrap(wrapped, aad)
	if err != nil {
		return nil, fmt.Errorf("unwrapping data key: %w", err)
	}
	return dataKey, nil
}

// Status implements core.KeyProvider. Its warnings tell of a key file that no
// longer holds the key in use.
func (p *provider) Status(ctx context.Context) (core.Status, error) {
	k, err := p.ready(ctx)
	if err != nil {
		return core.Status{}, fmt.Errorf("asking for key status: %w", err)
	}
	return core.Status{KEKID: k.id, Warnings: p.source.warnings()}, nil
}

// Close implements core.KeyProvider.
func (p *provider) Close() error {
	p.closed.Store(true)
	return nil
}
