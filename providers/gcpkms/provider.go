package gcpkms

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync/atomic"
	"time"

	"cloud.google.com/go/auth"
	kms "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/remote"
)

// Provider is a core.KeyProvider on a key of Cloud KMS.
type Provider struct {
	*remote.Provider
	service *provider
}

// provider is a key of Cloud KMS, as its API has it.
type provider struct {
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
	return remote.Opened(New(ctx, uri, nil))
}

// New is Open with options.
func New(_ context.Context, uri core.KeyURI, opts *Options) (*Provider, error) {
	s, err := parse(uri)
	if err != nil {
		return nil, remote.Explain(uri, err)
	}
	if opts == nil {
		opts = &Options{}
	}
	p := &provider{settings: s, opts: *opts, login: &login{settings: s, opts: *opts}}
	p.login.creds.Again = p.again
	if p.opts.Now == nil {
		p.opts.Now = time.Now
	}
	if s.file != "" { // a file that is wrong is a mistake in the configuration
		if _, err := p.login.detect(); err != nil {
			return nil, fmt.Errorf("configuring Cloud KMS: %w", err)
		}
	}
	return &Provider{remote.New(p), p}, nil
}

// Generate implements remote.Key.
func (p *provider) Generate(ctx context.Context, aad core.AAD) (core.DataKey, error) {
	dataKey := make([]byte, core.DataKeySize)
	_, _ = rand.Read(dataKey) // it never fails
	err := p.addRandomness(ctx, dataKey)
	if err != nil {
		return core.DataKey{Plaintext: dataKey}, err
	}
	w, err := p.Wrap(ctx, dataKey, aad)
	return core.DataKey{Plaintext: dataKey, Wrapped: w}, err
}

// Wrap implements remote.Key.
func (p *provider) Wrap(ctx context.Context, dataKey []byte, aad core.AAD) (core.WrappedKey, error) {
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
	p.version.Store(&number)
	return core.WrappedKey{KEKID: p.kekID(number), Wrapped: resp.GetCiphertext()}, nil
}

// kekID names a version of the key. The number may be "", where it is not known.
func (p *provider) kekID(number string) core.KEKID {
	return core.NewKEKID(p.settings.key.String(), number)
}

// Unwrap implements remote.Key. It names the key and not the version: Decrypt takes no
// version, and reads it from the ciphertext, which is bound to it.
func (p *provider) Unwrap(ctx context.Context, wrapped core.WrappedKey, aad core.AAD) ([]byte, error) {
	if wrapped.KEKID.Key() != p.settings.key.String() {
		return nil, remote.ErrNotOpened
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
	return resp.GetPlaintext(), nil
}

// Alter implements remote.Key.
func (p *provider) Alter(wrapped []byte) []byte { return remote.AlterLast(wrapped) }

// call runs f with a token, logs in again once if the credentials were refused, and
// explains the error that is left.
func (p *provider) call(ctx context.Context, method string, f func(context.Context, *kms.KeyManagementClient) error) error {
	client, err := p.login.client(ctx)
	if err != nil {
		return p.explainLogin(ctx, err)
	}
	return p.login.creds.Call(ctx, func(ctx context.Context, creds *auth.Credentials) error {
		if creds != nil { // not insecure; a failure to get a token keeps its type here alone
			if _, err := creds.Token(ctx); err != nil {
				return p.explainLogin(ctx, err)
			}
		}
		if err := f(ctx, client); err != nil {
			return p.explain(ctx, method, err)
		}
		return nil
	})
}

// Close implements remote.Key.
func (p *provider) Close() { p.login.close() }
