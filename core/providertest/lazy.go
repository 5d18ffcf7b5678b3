package providertest

import (
	"context"
	"sync"

	"github.com/lockwood-kms/lockwood/core"
)

// Lazy returns a provider that open opens when it is first used, closing included. Each
// check is given a new subject, and not every check uses all of it; where opening starts a
// process, that is most of the time. An error of open is the error of every call. The
// context of open has no deadline, whatever the first call's has. It is safe for
// concurrent use.
func Lazy(open func(context.Context) (core.KeyProvider, error)) core.KeyProvider {
	return &lazy{open: open}
}

type lazy struct {
	open     func(context.Context) (core.KeyProvider, error)
	once     sync.Once
	provider core.KeyProvider
	err      error
}

func (l *lazy) get(ctx context.Context) (core.KeyProvider, error) {
	l.once.Do(func() { l.provider, l.err = l.open(context.WithoutCancel(ctx)) })
	return l.provider, l.err
}

// GenerateDataKey implements core.KeyProvider.
func (l *lazy) GenerateDataKey(ctx context.Context, aad core.AAD) (core.DataKey, error) {
	p, err := l.get(ctx)
	if err != nil {
		return core.DataKey{}, err
	}
	return p.GenerateDataKey(ctx, aad)
}

// WrapDataKey implements core.Wrapper.
func (l *lazy) WrapDataKey(ctx context.Context, dataKey []byte, aad core.AAD) (core.WrappedKey, error) {
	p, err := l.get(ctx)
	if err != nil {
		return core.WrappedKey{}, err
	}
	return p.WrapDataKey(ctx, dataKey, aad)
}

// UnwrapDataKey implements core.KeyProvider.
func (l *lazy) UnwrapDataKey(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
	p, err := l.get(ctx)
	if err != nil {
		return nil, err
	}
	return p.UnwrapDataKey(ctx, w, aad)
}

// Status implements core.KeyProvider.
func (l *lazy) Status(ctx context.Context) (core.Status, error) {
	p, err := l.get(ctx)
	if err != nil {
		return core.Status{}, err
	}
	return p.Status(ctx)
}

// Close implements core.KeyProvider.
func (l *lazy) Close() error {
	p, err := l.get(context.Background())
	if err != nil {
		return err
	}
	return p.Close()
}
