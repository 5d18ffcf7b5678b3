package awskms

import (
	"context"
	"errors"
	"fmt"

	"github.com/lockwood-kms/lockwood/core"
)

// wrapAttempts bounds how often a wrap is made anew because the key was rotated
// meanwhile.
const wrapAttempts = 3

// made is a wrap as the service reports it.
type made struct {
	ciphertext []byte
	keyID      string
	// material is the key material that wrapped, if the service says so.
	material string
}

// wrapping makes a wrap, and names the KEK version that made it. Encrypt does not
// report the key material; then it is what was current before and is current still,
// and if that changed, the wrap is made anew.
func (p *provider) wrapping(ctx context.Context, aad core.AAD, do func(ctx context.Context, keyID string, ec map[string]string) (made, error)) (core.WrappedKey, error) {
	ec, err := encryptionContext(aad)
	if err != nil {
		return core.WrappedKey{}, err
	}
	key, err := p.resolve(ctx)
	for range wrapAttempts {
		if err != nil {
			return core.WrappedKey{}, err
		}
		var m made
		if m, err = do(ctx, p.requestID(key), ec); err != nil {
			return core.WrappedKey{}, err
		}
		if key, err = p.accept(key, m); err != nil {
			return core.WrappedKey{}, err
		}
		before := key.material
		switch {
		case before == "": // rotation is not observable
			return p.keep(key.kekID(""), m, ec), nil
		case m.material != "":
			return p.keep(key.kekID(m.material), m, ec), nil
		}
		if key, err = p.current(ctx, key); err == nil && key.material == before {
			return p.keep(key.kekID(before), m, ec), nil
		}
	}
	if err != nil {
		return core.WrappedKey{}, err
	}
	return core.WrappedKey{}, fmt.Errorf("the key was rotated during every attempt: %w", core.ErrUnavailable)
}

// accept checks that the configured key made the wrap, and learns the key's ARN
// where it could not be asked for.
func (p *provider) accept(key resolved, m made) (resolved, error) {
	a, ok := p.reported(key, m.keyID)
	if !ok {
		return key, fmt.Errorf("KMS used another key than the one configured: %w", core.ErrUnavailable)
	}
	if n := len(m.ciphertext); n > maxCiphertext {
		return key, fmt.Errorf("KMS gave a wrap of %d bytes: %w", n, core.ErrUnavailable)
	}
	if !key.known() {
		key = p.settle(a, nil)
	}
	return key, nil
}

// current asks again for the key material that is current.
func (p *provider) current(ctx context.Context, key resolved) (resolved, error) {
	md, a, err := p.describe(ctx, p.requestID(key))
	if err != nil {
		return key, err
	}
	return p.settle(a, md), nil
}

// keep remembers the wrap for Status and returns it.
func (p *provider) keep(id core.KEKID, m made, ec map[string]string) core.WrappedKey {
	p.remember(m.ciphertext, ec, true)
	return core.WrappedKey{KEKID: id, Wrapped: m.ciphertext}
}

// encryptionContext is aad as named pairs. Names must differ, or a pair would be
// lost and its value not bound.
func encryptionContext(aad core.AAD) (map[string]string, error) {
	ec := aad.Map()
	if len(ec) != len(aad) {
		return nil, errors.New("the aad names a value twice")
	}
	return ec, nil
}
