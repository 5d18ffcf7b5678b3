package vault

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lockwood-kms/lockwood/core"
)

// noType is the type that encrypt is told to give a key that it would create. No
// such key can encrypt, so none is created: a key that was deleted must not come
// back under the same name as another. For a key that exists it has no meaning.
const noType = "ecdsa-p256"

// Options are what a test changes. Nil and the zero value are right elsewhere.
type Options struct {
	// Now is the clock by which tokens are renewed; nil means time.Now.
	Now func() time.Time
}

// Provider is a core.KeyProvider on a key of a transit engine.
type Provider struct {
	settings settings
	login    *login
	closed   atomic.Bool
	binds    atomic.Bool // the server is known to bind associated_data
	used     versions
}

// Open is the core.Factory of this provider. It checks the whole key URI and the
// files of certificates, and reaches for no network. Files with credentials are read
// at the login, and may not be there yet.
func Open(ctx context.Context, uri core.KeyURI) (core.KeyProvider, error) {
	p, err := New(ctx, uri, nil)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// New is Open with options.
func New(_ context.Context, uri core.KeyURI, opts *Options) (*Provider, error) {
	s, err := parse(uri)
	if err != nil {
		return nil, fmt.Errorf("reading the key URI: %w", err)
	}
	now := time.Now
	if opts != nil && opts.Now != nil {
		now = opts.Now
	}
	p := &Provider{settings: s}
	if p.login, err = newLogin(&p.settings, now); err != nil {
		return nil, fmt.Errorf("configuring Vault: %w", err)
	}
	return p, nil
}

// GenerateDataKey implements core.KeyProvider.
func (p *Provider) GenerateDataKey(ctx context.Context, aad core.AAD) (core.DataKey, error) {
	dataKey, err := p.material(ctx)
	if err != nil {
		return core.DataKey{}, fmt.Errorf("generating data key: %w", err)
	}
	w, err := p.wrap(ctx, dataKey, aad)
	if err != nil {
		clear(dataKey)
		return core.DataKey{}, fmt.Errorf("generating data key: %w", err)
	}
	return core.DataKey{Plaintext: dataKey, Wrapped: w}, nil
}

// material returns random bytes of the server XOR random bytes of this machine. Two
// sources that know nothing of each other are as good as the better one.
func (p *Provider) material(ctx context.Context) ([]byte, error) {
	var got struct {
		Data struct {
			RandomBytes []byte `json:"random_bytes"`
		} `json:"data"`
	}
	if err := p.call(ctx, p.settings.randomBytes(), map[string]string{"format": "base64"}, &got); err != nil {
		return nil, err
	}
	theirs := got.Data.RandomBytes
	defer clear(theirs)
	if len(theirs) != core.DataKeySize {
		return nil, fmt.Errorf("the server gave %d random bytes instead of %d: %w", len(theirs), core.DataKeySize, core.ErrUnavailable)
	}
	dataKey := make([]byte, core.DataKeySize)
	_, _ = rand.Read(dataKey) // never fails; crypto/rand
	subtle.XORBytes(dataKey, dataKey, theirs)
	return dataKey, nil
}

// WrapDataKey implements core.Wrapper.
func (p *Provider) WrapDataKey(ctx context.Context, dataKey []byte, aad core.AAD) (core.WrappedKey, error) {
	if len(dataKey) != core.DataKeySize {
		return core.WrappedKey{}, fmt.Errorf("wrapping data key: it has %d bytes instead of %d", len(dataKey), core.DataKeySize)
	}
	w, err := p.wrap(ctx, dataKey, aad)
	if err != nil {
		return core.WrappedKey{}, fmt.Errorf("wrapping data key: %w", err)
	}
	return w, nil
}

func (p *Provider) wrap(ctx context.Context, dataKey []byte, aad core.AAD) (core.WrappedKey, error) {
	if err := p.bound(ctx); err != nil {
		return core.WrappedKey{}, err
	}
	ciphertext, version, err := p.encrypt(ctx, dataKey, aad.Bytes())
	if err != nil {
		return core.WrappedKey{}, err
	}
	p.used.add(version)
	return core.WrappedKey{KEKID: core.NewKEKID(p.settings.key(), version), Wrapped: ciphertext}, nil
}

// encrypt wraps bytes under the current version of the key.
func (p *Provider) encrypt(ctx context.Context, plaintext, aad []byte) (ciphertext []byte, version string, err error) {
	in := map[string]any{"plaintext": plaintext, "associated_data": aad, "type": noType}
	var got struct {
		Data struct {
			Ciphertext string      `json:"ciphertext"`
			KeyVersion json.Number `json:"key_version"`
		} `json:"data"`
		Warnings []string `json:"warnings"`
	}
	if err := p.call(ctx, p.settings.encrypt(), in, &got); err != nil {
		return nil, "", err
	}
	for _, w := range got.Warnings {
		if strings.Contains(w, "associated_data") { // "Endpoint ignored these unrecognized parameters"
			return nil, "", errUnbound
		}
	}
	ciphertext = []byte(got.Data.Ciphertext)
	version, ok := versionOf(ciphertext)
	if told := got.Data.KeyVersion.String(); !ok || told != "" && told != version {
		return nil, "", fmt.Errorf("the answer to encrypt is no ciphertext of a transit engine: %w", core.ErrUnavailable)
	}
	return ciphertext, version, nil
}

// UnwrapDataKey implements core.KeyProvider.
func (p *Provider) UnwrapDataKey(ctx context.Context, wrapped core.WrappedKey, aad core.AAD) ([]byte, error) {
	dataKey, err := p.unwrap(ctx, wrapped, aad)
	if err != nil {
		return nil, fmt.Errorf("unwrapping data key: %w", err)
	}
	return dataKey, nil
}

// unwrap refuses by itself what is not a wrap of this key in its one form: the
// version in the KEK ID and the one in the ciphertext are the same.
func (p *Provider) unwrap(ctx context.Context, wrapped core.WrappedKey, aad core.AAD) ([]byte, error) {
	if err := p.ready(ctx); err != nil {
		return nil, err
	}
	version, ok := versionOf(wrapped.Wrapped)
	if !ok || wrapped.KEKID != core.NewKEKID(p.settings.key(), version) {
		return nil, errNotOpened
	}
	if err := p.bound(ctx); err != nil {
		return nil, err
	}
	dataKey, err := p.decrypt(ctx, wrapped.Wrapped, aad.Bytes())
	if err != nil {
		return nil, p.judge(ctx, err)
	}
	if len(dataKey) != core.DataKeySize {
		clear(dataKey)
		return nil, errNotOpened
	}
	p.used.add(version)
	return dataKey, nil
}

var errNotOpened = fmt.Errorf("the key does not open the wrap: %w", core.ErrInvalidCiphertext)

func (p *Provider) decrypt(ctx context.Context, ciphertext, aad []byte) ([]byte, error) {
	in := map[string]any{"ciphertext": string(ciphertext), "associated_data": aad}
	var got struct {
		Data struct {
			Plaintext []byte `json:"plaintext"`
		} `json:"data"`
	}
	if err := p.call(ctx, p.settings.decrypt(), in, &got); err != nil {
		return nil, err
	}
	if got.Data.Plaintext == nil {
		return nil, fmt.Errorf("the answer to decrypt is none of a transit engine: %s: %w", p.settings.fill(p.settings.decrypt(), hintMount), core.ErrUnavailable)
	}
	return got.Data.Plaintext, nil
}

// judge decides what a refusal of decrypt means whose text is not known: if the key
// opens what it wraps, the wrap is at fault.
func (p *Provider) judge(ctx context.Context, err error) error {
	refused, ok := errors.AsType[*failure](err)
	if !ok || refused.means != nil {
		return err
	}
	if p.probe(ctx) == nil {
		return errNotOpened
	}
	return fmt.Errorf("%s, for a reason that is not known here; look into its audit log: %w", refused.text, core.ErrUnavailable)
}

// Close implements core.KeyProvider. A token of an own login is revoked, for which
// Close waits half a second at most.
func (p *Provider) Close() error {
	if !p.closed.Swap(true) {
		p.login.close()
	}
	return nil
}
