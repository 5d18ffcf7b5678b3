package sealing

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
)

// keySize is that of AES-256, in bytes.
const keySize = 32

func newBlock() (cipher.Block, error) {
	key := make([]byte, keySize)
	rand.Read(key)
	return aes.NewCipher(key)
}

// newBare is the limit: AES-256-GCM with a random nonce and nothing else, in the
// one form that a FIPS 140-3 module approves.
func newBare() (scheme, error) {
	block, err := newBlock()
	if err != nil {
		return scheme{}, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return scheme{}, err
	}
	return appending("standard library, random nonce, buffer reused (the limit)",
		func(dst, plaintext, aad []byte) ([]byte, error) { return aead.Seal(dst, nil, plaintext, aad), nil },
		func(dst, record, aad []byte) ([]byte, error) { return aead.Open(dst, nil, record, aad) },
	), nil
}

// newBareNonce is the same with the nonce drawn by the caller.
func newBareNonce() (scheme, error) {
	block, err := newBlock()
	if err != nil {
		return scheme{}, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return scheme{}, err
	}
	size := aead.NonceSize()
	return appending("standard library, `NewGCM` and `crypto/rand`, buffer reused",
		func(dst, plaintext, aad []byte) ([]byte, error) {
			dst = append(dst, make([]byte, size)...)
			nonce := dst[len(dst)-size:]
			rand.Read(nonce)
			return aead.Seal(dst, nonce, plaintext, aad), nil
		},
		func(dst, record, aad []byte) ([]byte, error) {
			return aead.Open(dst, record[:size], record[size:], aad)
		},
	), nil
}
