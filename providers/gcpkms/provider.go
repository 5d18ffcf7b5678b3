package gcpkms

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"cloud.google.com/go/auth"
	kms "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"

	"github.com/lockwood-kms/lockwood/core"
)

// callTimeout bounds a call whose context has no deadline.
const callTimeout = 30 * time.Second

// Provider is a core.KeyProvider on a key of Cloud KMS.
type Provider struct {
	settings settings
	opts     Options
	login    *login

	// version is the number of the version that Encrypt used last, or nil.
	version atomic.Pointer[string]
	// checksums says that the service has sent one; noChecksums that an emulator
	// was let get away without.
	checksums, noChecksums atomic.Bool
	random                 randomness
	older                  olderVersions
}

// Open is the core.Factory of this provider. It checks the whole key URI and the
// credentials file, if there is one, and reaches for no network.
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
	if opts == nil {
		opts = &Options{}
	}
	p := &Provider{settings: s, opts: *opts, login: &login{settings: s, opts: *opts}}
	if p.opts.Now == nil {
		p.opts.Now = time.Now
	}
	if s.file != "" { // a file that is wrong is a mistake in the configuration
		if _, err := p.login.detect(); err != nil {
			return nil, fmt.Errorf("configuring Cloud KMS: %w", err)
		}
	}
	return p, nil
}

// GenerateDataKey implements core.KeyProvider.
func (p *Provider) GenerateDataKey(ctx context.Context, aad core.AAD) (core.DataKey, error) {
	dataKey := make([]byte, core.DataKeySize)
	_, _ = rand.Read(dataKey) // it never fails
	err := p.addRandomness(ctx, dataKey)
	var w core.WrappedKey
	if err == nil {
		w, err = p.wrap(ctx, dataKey, aad)
	}
	if err != nil {
		clear(dataKey)
		return core.DataKey{}, fmt.Errorf("generating data key: %w", err)
	}
	return core.DataKey{Plaintext: dataKey, Wrapped: w}, nil
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
	bound := aad.Bytes()
	req := &kmspb.EncryptRequest{
		Name: p.settings.key.String(), Plaintext: dataKey, PlaintextCrc32C: checksum(dataKey),
		AdditionalAuthenticatedData: bound, AdditionalAuthenticatedDataCrc32C: checksum(bound),
	}
	resp, err := intact(ctx, p, opEncrypt, func(ctx context.Context, client *kms.KeyManagementClient) (*kmspb.EncryptResponse, error) {
		return client.Encrypt(ctx, req, p.opts.retry())
	}, p.checkEncrypted)
	if err != nil {
		return core.WrappedKey{}, p.byState(ctx, err, "")
	}
	number, ok := p.settings.key.number(resp.GetName())
	if !ok {
		return core.WrappedKey{}, fmt.Errorf("KMS used another key than the one configured: %w", core.ErrUnavailable)
	}
	if n := len(resp.GetCiphertext()); n == 0 || n > core.MaxWrappedSize {
		return core.WrappedKey{}, fmt.Errorf("KMS gave a wrap of %d bytes: %w", n, core.ErrUnavailable)
	}
	p.version.Store(&number)
	return core.WrappedKey{KEKID: p.kekID(number), Wrapped: resp.GetCiphertext()}, nil
}

// kekID names a version of the key. The number may be "", where it is not known.
func (p *Provider) kekID(number string) core.KEKID {
	return core.NewKEKID(p.settings.key.String(), number)
}

// UnwrapDataKey implements core.KeyProvider.
func (p *Provider) UnwrapDataKey(ctx context.Context, wrapped core.WrappedKey, aad core.AAD) ([]byte, error) {
	dataKey, err := p.unwrap(ctx, wrapped, aad)
	if err != nil {
		return nil, fmt.Errorf("unwrapping data key: %w", err)
	}
	return dataKey, nil
}

// unwrap names the key and not the version: Decrypt takes no version, and reads it
// from the ciphertext, which is bound to it.
func (p *Provider) unwrap(ctx context.Context, wrapped core.WrappedKey, aad core.AAD) ([]byte, error) {
	n := len(wrapped.Wrapped)
	if n == 0 || n > core.MaxWrappedSize || wrapped.KEKID.Key() != p.settings.key.String() {
		return nil, p.notOpened(ctx)
	}
	bound := aad.Bytes()
	req := &kmspb.DecryptRequest{
		Name: p.settings.key.String(), Ciphertext: wrapped.Wrapped, CiphertextCrc32C: checksum(wrapped.Wrapped),
		AdditionalAuthenticatedData: bound, AdditionalAuthenticatedDataCrc32C: checksum(bound),
	}
	resp, err := intact(ctx, p, opDecrypt, func(ctx context.Context, client *kms.KeyManagementClient) (*kmspb.DecryptResponse, error) {
		return client.Decrypt(ctx, req, p.opts.retry())
	}, p.checkDecrypted)
	if err != nil {
		return nil, p.byState(ctx, err, wrapped.KEKID.Version())
	}
	if len(resp.GetPlaintext()) != core.DataKeySize {
		clear(resp.GetPlaintext())
		return nil, p.notOpened(ctx)
	}
	return resp.GetPlaintext(), nil
}

// notOpened is the answer for a wrap that the service need not see. A provider
// that is closed, or a caller that has gone, is not told of wraps.
func (p *Provider) notOpened(ctx context.Context) error {
	if err := p.ready(ctx); err != nil {
		return err
	}
	return errNotOpened
}

// errNotOpened is the one answer for every wrap that does not open. Which of the
// reasons it was is never told.
var errNotOpened = fmt.Errorf("KMS does not open the wrap: %w", core.ErrInvalidCiphertext)

func (p *Provider) ready(ctx context.Context) error {
	if p.login.isClosed() {
		return fmt.Errorf("%w: %w", errClosed, core.ErrUnavailable)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", core.ErrUnavailable, err)
	}
	return nil
}

// operation makes one call. A refusal of the credentials is believed only after
// they were read again, since they may have been renewed.
type operation func(ctx context.Context, client *kms.KeyManagementClient) error

// call runs f, logs in again once if the credentials were refused, and explains
// the error that is left.
func (p *Provider) call(ctx context.Context, method string, f operation) error {
	if err := p.ready(ctx); err != nil {
		return err
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	client, err := p.login.client(ctx)
	if err != nil {
		return p.explainLogin(ctx, err)
	}
	creds, err := p.attempt(ctx, client, method, f)
	if refused, ok := errors.AsType[*failure](err); !ok || !refused.login {
		return err
	}
	if err := p.login.again(creds); err != nil {
		return p.explainLogin(ctx, err)
	}
	_, err = p.attempt(ctx, client, method, f)
	return err
}

// attempt makes sure of a token and runs f. It returns the credentials it used.
func (p *Provider) attempt(ctx context.Context, client *kms.KeyManagementClient, method string, f operation) (*auth.Credentials, error) {
	creds, err := p.login.token(ctx)
	if err != nil {
		return creds, p.explainLogin(ctx, err)
	}
	if err := f(ctx, client); err != nil {
		return creds, p.explain(ctx, method, err)
	}
	return creds, nil
}

// Close implements core.KeyProvider.
func (p *Provider) Close() error {
	p.login.close()
	return nil
}
