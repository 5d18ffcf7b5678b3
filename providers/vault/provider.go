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
	"github.com/lockwood-kms/lockwood/providers/remote"
)

// noType is the type that encrypt is told to give a key that it would create. No
// such key can encrypt, so none is created: a key that was deleted must not come
// back under the same name as another. For a key that exists it has no meaning.
const noType = "ecdsa-p256"

// Options are what a test changes. Nil and the zero value are right elsewhere.
type Options struct {
	// Now is the clock by which tokens are renewed; nil means time.Now.
	Now func() time.Time
	// AfterFunc calls f after a time, unless stop is called before; nil means
	// time.AfterFunc.
	AfterFunc func(d time.Duration, f func()) (stop func() bool)
}

// Provider is a core.KeyProvider on a key of a transit engine.
type Provider struct{ *remote.Provider }

// transitKey is a key of a transit engine, as the HTTP API has it.
type transitKey struct {
	settings settings
	login    *login
	binds    atomic.Bool // the server is known to bind associated_data
	used     versions
	ignores  atomic.Pointer[bool] // whether the server ignores namespaces; nil before it was asked
}

// Open is the core.Factory of this provider. It checks the whole key URI and the
// files of certificates, and reaches for no network. Files with credentials are read
// at the login, and may not be there yet.
func Open(ctx context.Context, uri core.KeyURI) (core.KeyProvider, error) {
	return remote.Opened(New(ctx, uri, nil))
}

// New is Open with options.
func New(_ context.Context, uri core.KeyURI, opts *Options) (*Provider, error) {
	s, err := parse(uri)
	if err != nil {
		return nil, remote.Explain(uri, err)
	}
	k := &transitKey{settings: s}
	if k.login, err = newLogin(&k.settings, opts); err != nil {
		return nil, fmt.Errorf("configuring Vault: %w", err)
	}
	return &Provider{remote.New(k)}, nil
}

// Generate implements remote.Key.
func (k *transitKey) Generate(ctx context.Context, aad core.AAD) (core.DataKey, error) {
	dataKey, err := k.material(ctx)
	if err != nil {
		return core.DataKey{}, err
	}
	w, err := k.Wrap(ctx, dataKey, aad)
	return core.DataKey{Plaintext: dataKey, Wrapped: w}, err
}

// material returns random bytes of the server XOR random bytes of this machine. Two
// sources that know nothing of each other are as good as the better one.
func (k *transitKey) material(ctx context.Context) ([]byte, error) {
	var got struct {
		Data struct {
			RandomBytes []byte `json:"random_bytes"`
		} `json:"data"`
	}
	if err := k.call(ctx, k.settings.randomBytes(), map[string]string{"format": "base64"}, &got); err != nil {
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

// Wrap implements remote.Key.
func (k *transitKey) Wrap(ctx context.Context, dataKey []byte, aad core.AAD) (core.WrappedKey, error) {
	if err := k.bound(ctx); err != nil {
		return core.WrappedKey{}, err
	}
	ciphertext, version, err := k.encrypt(ctx, dataKey, aad.Bytes())
	if err != nil {
		return core.WrappedKey{}, err
	}
	k.used.add(version)
	return core.WrappedKey{KEKID: core.NewKEKID(k.settings.key(), version), Wrapped: ciphertext}, nil
}

// encrypt wraps bytes under the current version of the key.
func (k *transitKey) encrypt(ctx context.Context, plaintext, aad []byte) (ciphertext []byte, version string, err error) {
	in := map[string]any{"plaintext": plaintext, "associated_data": aad, "type": noType}
	var got struct {
		Data struct {
			Ciphertext string      `json:"ciphertext"`
			KeyVersion json.Number `json:"key_version"`
		} `json:"data"`
		Warnings []string `json:"warnings"`
	}
	if err := k.call(ctx, k.settings.encrypt(), in, &got); err != nil {
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

// Unwrap implements remote.Key. It refuses by itself what is not a wrap of this key in
// its one form: the version in the KEK ID and the one in the ciphertext are the same.
func (k *transitKey) Unwrap(ctx context.Context, wrapped core.WrappedKey, aad core.AAD) ([]byte, error) {
	version, ok := versionOf(wrapped.Wrapped)
	if !ok || wrapped.KEKID != core.NewKEKID(k.settings.key(), version) {
		return nil, remote.ErrNotOpened
	}
	if err := k.bound(ctx); err != nil {
		return nil, err
	}
	dataKey, err := k.decrypt(ctx, wrapped.Wrapped, aad.Bytes())
	if err != nil {
		return nil, k.judge(ctx, err)
	}
	k.used.add(version)
	return dataKey, nil
}

func (k *transitKey) decrypt(ctx context.Context, ciphertext, aad []byte) ([]byte, error) {
	in := map[string]any{"ciphertext": string(ciphertext), "associated_data": aad}
	var got struct {
		Data struct {
			Plaintext []byte `json:"plaintext"`
		} `json:"data"`
	}
	if err := k.call(ctx, k.settings.decrypt(), in, &got); err != nil {
		return nil, err
	}
	if got.Data.Plaintext == nil {
		return nil, fmt.Errorf("the answer to decrypt is none of a transit engine: %s: %w", k.settings.fill(k.settings.decrypt(), hintMount), core.ErrUnavailable)
	}
	return got.Data.Plaintext, nil
}

// judge decides what a refusal of decrypt means whose text is not known: if the key
// opens what it wraps, the wrap is at fault.
func (k *transitKey) judge(ctx context.Context, err error) error {
	refused, ok := errors.AsType[*failure](err)
	if !ok || refused.Means != nil {
		return err
	}
	if k.probe(ctx) == nil {
		return remote.ErrNotOpened
	}
	return fmt.Errorf("%s, for a reason that is not known here; look into its audit log: %w", refused.Text, core.ErrUnavailable)
}

// Alter implements remote.Key.
func (k *transitKey) Alter(wrapped []byte) []byte { return alter(wrapped) }

// Close implements remote.Key. A token of an own login is revoked, for which Close waits
// half a second at most.
func (k *transitKey) Close() { k.login.close() }
