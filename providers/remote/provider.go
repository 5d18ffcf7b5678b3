package remote

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/lockwood-kms/lockwood/core"
)

// CallTimeout bounds a call whose context has no deadline.
const CallTimeout = 30 * time.Second

// Key is one key of a KMS, as the vendor's API has it. Its methods are called with a
// deadline, with arguments that were checked, and not after Close. Their errors wrap
// the sentinels of package core, and repeat nothing that the service wrote.
// Implementations are safe for concurrent use.
type Key interface {
	// Generate returns a fresh data key and its wrap.
	Generate(ctx context.Context, aad core.AAD) (core.DataKey, error)
	// Wrap wraps a data key of core.DataKeySize bytes.
	Wrap(ctx context.Context, dataKey []byte, aad core.AAD) (core.WrappedKey, error)
	// Unwrap opens a wrap. It returns ErrInvalidCiphertext for one that the key does
	// not open.
	Unwrap(ctx context.Context, wrapped core.WrappedKey, aad core.AAD) ([]byte, error)
	// Status is that of core.KeyProvider.
	Status(ctx context.Context) (core.Status, error)
	// Alter returns a copy of a wrap that is well formed and differs in one bit of
	// what the service authenticates.
	Alter(wrapped []byte) []byte
	// Close releases what the key holds. It is called once.
	Close()
}

// Provider is a core.KeyProvider on a Key.
type Provider struct {
	key    Key
	closed atomic.Bool
	// strict says that the service refused what it has to refuse.
	strict atomic.Bool
	// demanding admits one demand at a time: of several first wraps one is enough.
	demanding chan struct{}
}

// New returns a provider on a key.
func New(key Key) *Provider { return &Provider{key: key, demanding: make(chan struct{}, 1)} }

// Opened turns what a provider's New returns into what a core.Factory does.
func Opened[P core.KeyProvider](p P, err error) (core.KeyProvider, error) {
	if err != nil {
		return nil, err
	}
	return p, nil
}

// AlterLast is Key.Alter for wraps that end with what authenticates them.
func AlterLast(wrapped []byte) []byte {
	altered := bytes.Clone(wrapped)
	altered[len(altered)-1] ^= 1
	return altered
}

// GenerateDataKey implements core.KeyProvider.
func (p *Provider) GenerateDataKey(ctx context.Context, aad core.AAD) (core.DataKey, error) {
	dk, err := call(ctx, p, func(ctx context.Context) (core.DataKey, error) { return p.generate(ctx, aad) })
	if err != nil {
		clear(dk.Plaintext)
		return core.DataKey{}, fmt.Errorf("generating data key: %w", err)
	}
	return dk, nil
}

func (p *Provider) generate(ctx context.Context, aad core.AAD) (core.DataKey, error) {
	dk, err := p.key.Generate(ctx, aad)
	if err != nil {
		return dk, err
	}
	if n := len(dk.Plaintext); n != core.DataKeySize {
		return dk, fmt.Errorf("the service gave a data key of %d bytes instead of %d: %w", n, core.DataKeySize, core.ErrUnavailable)
	}
	return dk, p.confirm(ctx, dk.Plaintext, dk.Wrapped, aad)
}

// WrapDataKey implements core.Wrapper.
func (p *Provider) WrapDataKey(ctx context.Context, dataKey []byte, aad core.AAD) (core.WrappedKey, error) {
	if len(dataKey) != core.DataKeySize {
		return core.WrappedKey{}, fmt.Errorf("wrapping data key: it has %d bytes instead of %d", len(dataKey), core.DataKeySize)
	}
	w, err := call(ctx, p, func(ctx context.Context) (core.WrappedKey, error) {
		w, err := p.key.Wrap(ctx, dataKey, aad)
		if err != nil {
			return w, err
		}
		return w, p.confirm(ctx, dataKey, w, aad)
	})
	if err != nil {
		return core.WrappedKey{}, fmt.Errorf("wrapping data key: %w", err)
	}
	return w, nil
}

// UnwrapDataKey implements core.KeyProvider.
func (p *Provider) UnwrapDataKey(ctx context.Context, wrapped core.WrappedKey, aad core.AAD) ([]byte, error) {
	dataKey, err := call(ctx, p, func(ctx context.Context) ([]byte, error) { return p.unwrap(ctx, wrapped, aad) })
	if err != nil {
		return nil, fmt.Errorf("unwrapping data key: %w", err)
	}
	return dataKey, nil
}

// unwrap returns what a wrap holds, if that is a data key.
func (p *Provider) unwrap(ctx context.Context, wrapped core.WrappedKey, aad core.AAD) ([]byte, error) {
	if n := len(wrapped.Wrapped); n == 0 || n > core.MaxWrappedSize {
		return nil, ErrNotOpened
	}
	dataKey, err := p.key.Unwrap(ctx, wrapped, aad)
	if err == nil && len(dataKey) != core.DataKeySize {
		err = ErrNotOpened
	}
	if err != nil {
		clear(dataKey)
		return nil, err
	}
	return dataKey, nil
}

// Status implements core.KeyProvider.
func (p *Provider) Status(ctx context.Context) (core.Status, error) {
	st, err := call(ctx, p, p.key.Status)
	if err != nil {
		return core.Status{}, fmt.Errorf("asking for key status: %w", err)
	}
	return st, nil
}

// Close implements core.KeyProvider.
func (p *Provider) Close() error {
	if !p.closed.Swap(true) {
		p.key.Close()
	}
	return nil
}

// ErrNotOpened is the one error for a wrap that does not open. Which of the reasons
// it was is never told.
var ErrNotOpened = fmt.Errorf("the key does not open the wrap: %w", core.ErrInvalidCiphertext)

var errClosed = fmt.Errorf("the provider is closed: %w", core.ErrUnavailable)

// call runs f with a deadline, unless the provider is closed or the caller gone: of
// neither anything is said that an answer of the key would be taken for.
func call[T any](ctx context.Context, p *Provider, f func(context.Context) (T, error)) (none T, err error) {
	if p.closed.Load() {
		return none, errClosed
	}
	if err := ctx.Err(); err != nil {
		return none, fmt.Errorf("%w: %w", core.ErrUnavailable, err)
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, CallTimeout)
		defer cancel()
	}
	return f(ctx)
}
