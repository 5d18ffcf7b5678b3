package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/remote"
)

// Open is a core.Factory: it checks the whole key URI, says what to write instead, and
// reaches for nothing yet.
func Open(_ context.Context, uri core.KeyURI) (core.KeyProvider, error) {
	err := uri.CheckOptions() // yours, by name; without it a misspelt option would be dropped
	if uri.Host != "" || uri.Path == "" {
		err = errors.Join(err, errors.New("the key URI names no file: write acmehsm:///path/of/the/file"))
	}
	if err != nil {
		return nil, err
	}
	return remote.New(&key{file: "/" + uri.Path}), nil
}

// key is a key of the service, as its API has it. What else a provider owes, such as
// deadlines and seeing each wrap open, is remote.New's to do.
type key struct{ file string }

// use returns the key and its name. Replace it by a client of your service, and map what
// that answers to the four sentinels: only a refusal in as many words is a denial.
func (k *key) use() (cipher.AEAD, core.KEKID, error) {
	secret, err := os.ReadFile(k.file)
	defer clear(secret)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, "", fmt.Errorf("there is no file %s yet: %w", k.file, core.ErrKeyMissing)
	case errors.Is(err, fs.ErrPermission):
		return nil, "", fmt.Errorf("the file %s may not be read: %w", k.file, core.ErrKeyDenied)
	case err != nil:
		return nil, "", fmt.Errorf("reading the key: %w: %w", err, core.ErrUnavailable)
	case len(secret) != core.DataKeySize:
		return nil, "", fmt.Errorf("the file %s does not hold %d bytes: %w", k.file, core.DataKeySize, core.ErrUnavailable)
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, "", err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	name := sha256.Sum256(append([]byte("acmehsm key version"), secret...)) // a version that tells nothing of the key
	return aead, core.NewKEKID("acmehsm:"+k.file, hex.EncodeToString(name[:8])), err
}

// Generate implements remote.Key.
func (k *key) Generate(ctx context.Context, aad core.AAD) (core.DataKey, error) {
	dataKey := make([]byte, core.DataKeySize)
	_, _ = rand.Read(dataKey) // it never fails
	w, err := k.Wrap(ctx, dataKey, aad)
	return core.DataKey{Plaintext: dataKey, Wrapped: w}, err
}

// Wrap implements remote.Key.
func (k *key) Wrap(_ context.Context, dataKey []byte, aad core.AAD) (core.WrappedKey, error) {
	aead, id, err := k.use()
	if err != nil {
		return core.WrappedKey{}, err
	}
	//nolint:gosec // the AEAD makes the nonce
	return core.WrappedKey{KEKID: id, Wrapped: aead.Seal(nil, nil, dataKey, aad.Bytes())}, nil
}

// Unwrap implements remote.Key.
func (k *key) Unwrap(_ context.Context, wrapped core.WrappedKey, aad core.AAD) ([]byte, error) {
	aead, id, err := k.use()
	if err != nil {
		return nil, err
	}
	if wrapped.KEKID != id {
		return nil, remote.ErrNotOpened
	}
	dataKey, err := aead.Open(nil, nil, wrapped.Wrapped, aad.Bytes())
	if err != nil {
		return nil, remote.ErrNotOpened // and nothing of why
	}
	return dataKey, nil
}

// Status implements remote.Key: whether the key may be used, and what wraps now.
func (k *key) Status(context.Context) (core.Status, error) {
	_, id, err := k.use()
	return core.Status{KEKID: id}, err
}

// Alter implements remote.Key.
func (k *key) Alter(wrapped []byte) []byte { return remote.AlterLast(wrapped) }

// Close implements remote.Key.
func (k *key) Close() {}
