package remote

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"

	"github.com/lockwood-kms/lockwood/core"
)

// minOverhead is the least that an authenticated encryption adds to what it
// encrypts: a tag of 16 bytes. NIST SP 800-38D permits shorter ones, which no KMS
// uses.
const minOverhead = 16

// confirm sees that a wrap holds dataKey and opens, before anybody relies on it. A
// service is believed to wrap what it was sent only if it gives that back: the body of
// a request may be lost on the way, and some services wrap an empty plaintext.
//
// An identity may have the right to wrap and not the one to unwrap, as that of a
// recovery KEK; then the length has to do.
func (p *Provider) confirm(ctx context.Context, dataKey []byte, w core.WrappedKey, aad core.AAD) error {
	if n := len(w.Wrapped); n < core.DataKeySize+minOverhead || n > core.MaxWrappedSize {
		return fmt.Errorf("the service gave a wrap of %d bytes, which cannot hold a data key of %d: %w", n, core.DataKeySize, core.ErrUnavailable)
	}
	got, err := p.unwrap(ctx, w, aad)
	same := subtle.ConstantTimeCompare(got, dataKey) == 1
	clear(got)
	switch {
	case errors.Is(err, core.ErrKeyDenied):
		return nil
	case err == nil && !same, errors.Is(err, core.ErrInvalidCiphertext):
		return fmt.Errorf("the service does not open what it has just wrapped: something on the way, such as a proxy or a redirect, loses or alters requests: %w", core.ErrUnavailable)
	case err != nil:
		return fmt.Errorf("opening the wrap to confirm it: %w", err)
	}
	return p.demand(ctx, w, aad)
}

// demand makes sure, once, that the service refuses an altered wrap, and one that was
// bound to other aad. One that opens either protects nothing against somebody who
// writes to the database. That is an answer, though the service does not know it.
func (p *Provider) demand(ctx context.Context, w core.WrappedKey, aad core.AAD) error {
	if p.strict.Load() {
		return nil
	}
	select {
	case p.demanding <- struct{}{}:
		defer func() { <-p.demanding }()
	case <-ctx.Done():
		return fmt.Errorf("waiting for another call: %w: %w", core.ErrUnavailable, context.Cause(ctx))
	}
	if p.strict.Load() {
		return nil
	}
	altered := core.WrappedKey{KEKID: w.KEKID, Wrapped: p.key.Alter(w.Wrapped)}
	if err := p.refuses(ctx, altered, aad, "a wrap that was altered"); err != nil {
		return err
	}
	if err := p.refuses(ctx, w, other(aad), "a wrap under other additional data than it was bound to"); err != nil {
		return err
	}
	p.strict.Store(true)
	return nil
}

// refuses returns nil if the service refuses to open a wrap, whatever it calls that.
func (p *Provider) refuses(ctx context.Context, w core.WrappedKey, aad core.AAD, what string) error {
	got, err := p.unwrap(ctx, w, aad)
	clear(got)
	switch {
	case err == nil:
		return fmt.Errorf("the service opens %s: it is not the KMS that it claims to be; nothing is wrapped under its key: %w", what, core.ErrKeyDenied)
	case errors.Is(err, core.ErrInvalidCiphertext), errors.Is(err, core.ErrKeyDenied):
		return nil
	default:
		return fmt.Errorf("finding out whether the service refuses %s: %w", what, err)
	}
}

// other returns aad that differs from aad in its last value.
func other(aad core.AAD) core.AAD {
	o := slices.Clone(aad)
	if len(o) == 0 {
		return core.AAD{{Name: "version", Value: "0"}}
	}
	o[len(o)-1].Value += "0"
	return o
}
