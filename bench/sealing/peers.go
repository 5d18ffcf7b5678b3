package sealing

import (
	"context"
	"crypto/rand"

	wrapping "github.com/hashicorp/go-kms-wrapping/v2"
	wrapaead "github.com/hashicorp/go-kms-wrapping/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
	"gocloud.dev/secrets/localsecrets"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/apiserver/pkg/storage/value/encrypt/aes"
)

// newPeers returns the others, each in its normal API and with AES-256-GCM where
// there is a choice.
func newPeers(ctx context.Context) ([]scheme, error) {
	var peers []scheme
	for _, newPeer := range []func(context.Context) (scheme, error){
		newTink, newTinkEnvelope, newKMSWrapping, newGoCloud, newKubernetesGCM, newKubernetesExtended,
	} {
		s, err := newPeer(ctx)
		if err != nil {
			return nil, err
		}
		peers = append(peers, s)
	}
	return peers, nil
}

func newTinkKeyset() (tink.AEAD, error) {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, err
	}
	return aead.New(handle)
}

func newTink(context.Context) (scheme, error) {
	a, err := newTinkKeyset()
	if err != nil {
		return scheme{}, err
	}
	return allocating("Tink: keyset AEAD", a.Encrypt, a.Decrypt), nil
}

// newTinkEnvelope makes a data key for every record, under a KEK in memory.
func newTinkEnvelope(context.Context) (scheme, error) {
	kek, err := newTinkKeyset()
	if err != nil {
		return scheme{}, err
	}
	a := aead.NewKMSEnvelopeAEAD2(aead.AES256GCMKeyTemplate(), kek)
	return allocating("Tink: KMS envelope AEAD, KEK in memory", a.Encrypt, a.Decrypt), nil
}

// newKMSWrapping's sealed value is a message, which is left as it is.
func newKMSWrapping(ctx context.Context) (scheme, error) {
	key := make([]byte, keySize)
	rand.Read(key)
	w := wrapaead.NewWrapper()
	if err := w.SetAesGcmKeyBytes(key); err != nil {
		return scheme{}, err
	}
	prepare := func(plaintext, aad []byte) (func() error, func() ([]byte, error), error) {
		blob, err := w.Encrypt(ctx, plaintext, wrapping.WithAad(aad))
		if err != nil {
			return nil, nil, err
		}
		return func() error {
				_, err := w.Encrypt(ctx, plaintext, wrapping.WithAad(aad))
				return err
			}, func() ([]byte, error) {
				return w.Decrypt(ctx, blob, wrapping.WithAad(aad))
			}, nil
	}
	return scheme{"go-kms-wrapping: aead wrapper", prepare}, nil
}

// newGoCloud seals with NaCl's secretbox, which takes no aad.
func newGoCloud(ctx context.Context) (scheme, error) {
	key, err := localsecrets.NewRandomKey()
	if err != nil {
		return scheme{}, err
	}
	keeper := localsecrets.NewKeeper(key)
	return allocating("gocloud.dev/secrets: localsecrets, no aad",
		func(plaintext, _ []byte) ([]byte, error) { return keeper.Encrypt(ctx, plaintext) },
		func(record, _ []byte) ([]byte, error) { return keeper.Decrypt(ctx, record) },
	), nil
}

func newKubernetesGCM(ctx context.Context) (scheme, error) {
	block, err := newBlock()
	if err != nil {
		return scheme{}, err
	}
	t, err := aes.NewGCMTransformer(block)
	if err != nil {
		return scheme{}, err
	}
	return transformer(ctx, "Kubernetes: AES-GCM transformer", t), nil
}

// newKubernetesExtended derives a key for every record from a seed, as KMS v2
// does, and keeps the keys of those it has opened lately.
func newKubernetesExtended(ctx context.Context) (scheme, error) {
	seed := make([]byte, keySize)
	rand.Read(seed)
	t, err := aes.NewHKDFExtendedNonceGCMTransformer(seed)
	if err != nil {
		return scheme{}, err
	}
	return transformer(ctx, "Kubernetes: extended-nonce AES-GCM transformer (KMS v2)", t), nil
}

func transformer(ctx context.Context, name string, t value.Transformer) scheme {
	return allocating(name,
		func(plaintext, aad []byte) ([]byte, error) {
			return t.TransformToStorage(ctx, plaintext, value.DefaultContext(aad))
		},
		func(record, aad []byte) ([]byte, error) {
			plaintext, _, err := t.TransformFromStorage(ctx, record, value.DefaultContext(aad))
			return plaintext, err
		},
	)
}
