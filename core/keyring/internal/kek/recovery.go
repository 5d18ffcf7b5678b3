package kek

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/lockwood-kms/lockwood/core"
)

// RecoveryKEK wraps every data key besides the current KEK, for the day on which
// that one is lost. Its private half may be offline. It is safe for concurrent
// use.
type RecoveryKEK interface {
	core.Wrapper
	// KEKID returns the KEK version that wraps now. It returns
	// core.ErrKeyMissing, core.ErrKeyDenied or core.ErrUnavailable.
	KEKID(ctx context.Context) (core.KEKID, error)
}

// NewRecoveryKEK returns a recovery KEK that p holds. A wrap is seen to unwrap if
// p permits that; one that may only wrap is a recovery KEK too.
func NewRecoveryKEK(p core.KeyProvider) RecoveryKEK { return providerKEK{p} }

type providerKEK struct{ core.KeyProvider }

func (p providerKEK) KEKID(ctx context.Context) (core.KEKID, error) {
	s, err := p.Status(ctx)
	return s.KEKID, err
}

func (p providerKEK) WrapDataKey(ctx context.Context, dataKey []byte, aad core.AAD) (core.WrappedKey, error) {
	w, err := p.KeyProvider.WrapDataKey(ctx, dataKey, aad)
	if err != nil {
		return core.WrappedKey{}, err
	}
	plaintext, err := p.UnwrapDataKey(ctx, w, aad)
	defer clear(plaintext)
	if err == nil && !bytes.Equal(plaintext, dataKey) {
		err = core.ErrInvalidCiphertext
	}
	if err != nil && !errors.Is(err, core.ErrKeyDenied) {
		return core.WrappedKey{}, fmt.Errorf("verifying wrap: %w", err)
	}
	return w, nil
}

// Recovery is a RecoveryKEK with the KEK ID it last named. Its errors never
// mean a denial, which would be the current provider's.
type Recovery struct {
	kek RecoveryKEK
	id  atomic.Pointer[core.KEKID]
}

// NewRecovery returns the Recovery of k.
func NewRecovery(k RecoveryKEK) *Recovery { return &Recovery{kek: k} }

// ID returns the KEK ID last named, or "" if there was none yet.
func (p *Recovery) ID() core.KEKID {
	if id := p.id.Load(); id != nil {
		return *id
	}
	return ""
}

// Refresh asks for the KEK ID.
func (p *Recovery) Refresh(ctx context.Context) (core.KEKID, error) {
	id, err := p.kek.KEKID(ctx)
	if err != nil {
		return "", NotCurrent(fmt.Errorf("asking a recovery KEK for its KEK ID: %w", sentinel(err)))
	}
	p.id.Store(&id)
	return id, nil
}

// Resolve returns the KEK ID, asking for it if it was never named.
func (p *Recovery) Resolve(ctx context.Context) (core.KEKID, error) {
	if id := p.ID(); id != "" {
		return id, nil
	}
	return p.Refresh(ctx)
}

// Wrap returns the data key wrapped, and remembers the KEK that did it.
func (p *Recovery) Wrap(ctx context.Context, dataKey []byte, b Binding) (core.WrappedKey, error) {
	w, err := p.kek.WrapDataKey(ctx, dataKey, b.aad())
	if err != nil {
		return core.WrappedKey{}, NotCurrent(fmt.Errorf("wrapping under a recovery KEK: %w", sentinel(err)))
	}
	p.id.Store(&w.KEKID)
	return w, nil
}
