package awskms

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/remote"
)

// maxCiphertext is what Decrypt takes, in bytes; AWS KMS API Reference, Decrypt.
const maxCiphertext = 6144

// Provider is a core.KeyProvider on a key of AWS KMS.
type Provider struct{ *remote.Provider }

// provider is a key of AWS KMS, as its API has it.
type provider struct {
	settings settings
	region   string
	login    remote.Login[*kms.Client]

	settling sync.Mutex
	key      atomic.Pointer[resolved] // never nil
	// seen is a wrap whose unwrapping Status asks about; nil if there was none.
	seen atomic.Pointer[wrap]
}

// wrap is a wrapped data key with the encryption context it is bound to.
type wrap struct {
	ciphertext []byte
	context    map[string]string
	// opened says that the service made or opened it, so that it is known good.
	opened bool
}

// Open is the core.Factory of this provider. It checks the whole key URI and the
// SDK's configuration, and reaches for no network.
func Open(ctx context.Context, uri core.KeyURI) (core.KeyProvider, error) {
	return remote.Opened(New(ctx, uri, nil))
}

// New is Open with options.
func New(ctx context.Context, uri core.KeyURI, opts *Options) (*Provider, error) {
	s, err := parse(uri)
	if err != nil {
		return nil, remote.Explain(uri, err)
	}
	if opts == nil {
		opts = &Options{}
	}
	c := &connector{settings: s, opts: *opts}
	client, err := c.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("configuring AWS KMS: %w", err)
	}
	p := &provider{settings: s, region: client.Options().Region}
	p.login.Again = c.again
	p.login.Set(client)
	p.key.Store(&resolved{arn: s.key})
	return &Provider{remote.New(p)}, nil
}

// Generate implements remote.Key.
func (p *provider) Generate(ctx context.Context, aad core.AAD) (core.DataKey, error) {
	var dataKey []byte
	w, err := p.wrapping(ctx, aad, func(ctx context.Context, keyID string, ec map[string]string) (made, error) {
		var out *kms.GenerateDataKeyOutput
		err := p.call(ctx, "GenerateDataKey", func(ctx context.Context, client *kms.Client) (err error) {
			out, err = client.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: &keyID, KeySpec: types.DataKeySpecAes256, EncryptionContext: ec})
			return err
		})
		if err != nil {
			return made{}, err
		}
		clear(dataKey) // of an earlier attempt
		dataKey = out.Plaintext
		return made{out.CiphertextBlob, aws.ToString(out.KeyId), aws.ToString(out.KeyMaterialId)}, nil
	})
	return core.DataKey{Plaintext: dataKey, Wrapped: w}, err
}

// Wrap implements remote.Key.
func (p *provider) Wrap(ctx context.Context, dataKey []byte, aad core.AAD) (core.WrappedKey, error) {
	return p.wrapping(ctx, aad, func(ctx context.Context, keyID string, ec map[string]string) (made, error) {
		var out *kms.EncryptOutput
		err := p.call(ctx, "Encrypt", func(ctx context.Context, client *kms.Client) (err error) {
			out, err = client.Encrypt(ctx, &kms.EncryptInput{KeyId: &keyID, Plaintext: dataKey, EncryptionContext: ec})
			return err
		})
		if err != nil {
			return made{}, err
		}
		return made{out.CiphertextBlob, aws.ToString(out.KeyId), ""}, nil
	})
}

// Unwrap implements remote.Key.
func (p *provider) Unwrap(ctx context.Context, wrapped core.WrappedKey, aad core.AAD) ([]byte, error) {
	key := *p.key.Load()
	if !key.known() {
		var err error
		if key, err = p.resolve(ctx); err != nil {
			return nil, err
		}
	}
	ec, err := encryptionContext(aad)
	if err != nil || len(wrapped.Wrapped) > maxCiphertext || key.known() && wrapped.KEKID.Key() != key.arn.name() {
		return nil, remote.ErrNotOpened
	}
	out, err := p.decrypt(ctx, &kms.DecryptInput{KeyId: aws.String(p.requestID(key)), CiphertextBlob: wrapped.Wrapped, EncryptionContext: ec})
	if refusedTo(err) {
		p.remember(wrapped.Wrapped, ec, false)
	}
	if err != nil {
		return nil, err
	}
	a, ok := p.reported(key, aws.ToString(out.KeyId))
	if !ok || wrapped.KEKID.Key() != a.name() || len(out.Plaintext) != core.DataKeySize {
		clear(out.Plaintext)
		return nil, remote.ErrNotOpened
	}
	if !key.known() {
		p.settle(a, nil)
	}
	p.remember(wrapped.Wrapped, ec, true)
	return out.Plaintext, nil
}

func (p *provider) decrypt(ctx context.Context, in *kms.DecryptInput) (out *kms.DecryptOutput, err error) {
	err = p.call(ctx, "Decrypt", func(ctx context.Context, client *kms.Client) (err error) {
		out, err = client.Decrypt(ctx, in)
		return err
	})
	return out, err
}

// Alter implements remote.Key.
func (p *provider) Alter(wrapped []byte) []byte { return remote.AlterLast(wrapped) }

// Close implements remote.Key.
func (p *provider) Close() { p.seen.Store(nil) }
