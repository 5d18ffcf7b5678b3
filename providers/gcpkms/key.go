package gcpkms

import (
	"context"
	"fmt"

	kms "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/remote"
)

// getKey reads the key and its primary version. Reading is not billed.
func (p *provider) getKey(ctx context.Context) (key *kmspb.CryptoKey, err error) {
	err = p.call(ctx, opKey, func(ctx context.Context, client *kms.KeyManagementClient) (err error) {
		key, err = client.GetCryptoKey(ctx, &kmspb.GetCryptoKeyRequest{Name: p.settings.key.String()}, p.opts.retry())
		return err
	})
	if err != nil {
		return nil, err
	}
	if key.GetName() != p.settings.key.String() {
		return nil, fmt.Errorf("KMS %s told of another key than was asked for: %w", opKey, core.ErrUnavailable)
	}
	return key, nil
}

func (p *provider) getVersion(ctx context.Context, number string) (v *kmspb.CryptoKeyVersion, err error) {
	err = p.call(ctx, opVersion, func(ctx context.Context, client *kms.KeyManagementClient) (err error) {
		v, err = client.GetCryptoKeyVersion(ctx, &kmspb.GetCryptoKeyVersionRequest{Name: p.settings.key.version(number)}, p.opts.retry())
		return err
	})
	return v, err
}

// versionInUse reads the version with a number, or the primary if that is "". It
// fails if the key as a whole may not be used.
func (p *provider) versionInUse(ctx context.Context, number string) (*kmspb.CryptoKeyVersion, error) {
	key, err := p.getKey(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.usablePurpose(key); err != nil {
		return nil, err
	}
	primary, _ := p.settings.key.number(key.GetPrimary().GetName())
	if versionPattern.MatchString(number) && number != primary {
		return p.getVersion(ctx, number)
	}
	return key.GetPrimary(), p.usablePrimary(key)
}

// usableKey returns nil, or why the key does not wrap.
func (p *provider) usableKey(key *kmspb.CryptoKey) error {
	if err := p.usablePurpose(key); err != nil {
		return err
	}
	return p.usablePrimary(key)
}

func (p *provider) usablePurpose(key *kmspb.CryptoKey) error {
	if purpose := key.GetPurpose(); purpose != kmspb.CryptoKey_ENCRYPT_DECRYPT {
		return fmt.Errorf("the key has the purpose %v, which cannot be changed: make one with gcloud kms keys create KEY --purpose=encryption: %w", purpose, core.ErrKeyDenied)
	}
	return nil
}

func (p *provider) usablePrimary(key *kmspb.CryptoKey) error {
	if key.GetPrimary() == nil {
		return fmt.Errorf("the key has no primary version: make one that is enabled the primary with gcloud kms keys set-primary-version %s --version=NUMBER: %w", p.keyFlags(), core.ErrKeyDenied)
	}
	return p.usableVersion(opKey, key.GetPrimary())
}

// usableVersion returns nil, or why the version may not be used.
func (p *provider) usableVersion(method string, v *kmspb.CryptoKeyVersion) error {
	if v.GetState() == kmspb.CryptoKeyVersion_ENABLED {
		return nil
	}
	a, ok := byVersionState[v.GetState().String()]
	if !ok {
		a = remote.Unavailable("its state is none that Cloud KMS documents")
	}
	number, _ := p.settings.key.number(v.GetName())
	return &remote.ServiceError{Answer: a, Operation: method, Text: p.versionText(method, number, a)}
}
