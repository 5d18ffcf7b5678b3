package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/lockwood-kms/lockwood/core"
)

// MaxSeals is how many records one data key may seal: 2^30. With random 96-bit
// nonces the chance of any repeated nonce is then below 2^-37; NIST SP 800-38D
// section 8.3 allows 2^32 at 2^-32. Package keyring keeps to it.
const MaxSeals = 1 << 30

// KeyIDSize is the length of a key ID in bytes.
const KeyIDSize = 16

// recordInfo separates this use of a data key from any other (RFC 5869 section
// 3.2).
const recordInfo = "lockwood/1 record"

// KeyID names a data key and commits to it: both come out of the same HKDF call.
// A provider that unwraps to another key than the one that was wrapped is
// therefore noticed before the key is used. The commitment is of 128 bits: 2^64
// work for someone who may choose both keys, which nobody can without already
// controlling the KEK.
type KeyID [KeyIDSize]byte

// ParseKeyID parses the form that String returns.
func ParseKeyID(s string) (KeyID, error) {
	var id KeyID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != KeyIDSize {
		return KeyID{}, fmt.Errorf("parsing key ID: want %d hexadecimal digits", 2*KeyIDSize)
	}
	copy(id[:], b)
	return id, nil
}

// String returns the ID as 32 hexadecimal digits.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether id is the zero value, which names no key.
func (id KeyID) IsZero() bool { return id == KeyID{} }

// Key seals and opens records under one data key. It is safe for concurrent use.
type Key struct {
	id   KeyID
	aead cipher.AEAD
}

// NewKey derives a Key from dataKey, core.DataKeySize bytes, which it does not
// keep. It returns core.ErrInvalidCiphertext for another length, since a data
// key of another length can only come from a provider that misbehaves.
func NewKey(dataKey []byte) (*Key, error) {
	if len(dataKey) != core.DataKeySize {
		return nil, fmt.Errorf("deriving record key: data key of %d bytes: %w", len(dataKey), core.ErrInvalidCiphertext)
	}
	okm, err := hkdfSHA256(dataKey, nil, recordInfo, 32+KeyIDSize)
	if err != nil {
		return nil, err
	}
	defer clear(okm)
	aead, err := newGCM(okm[:32])
	if err != nil {
		return nil, err
	}
	return &Key{id: KeyID(okm[32:]), aead: aead}, nil
}

// ID returns the key ID.
func (k *Key) ID() KeyID { return k.id }

// hkdfSHA256 is the one derivation of this package. Its only error is that of a
// FIPS 140-3 module which refuses a key below 112 bits (14 bytes).
func hkdfSHA256(secret, salt []byte, info string, length int) ([]byte, error) {
	okm, err := hkdf.Key(sha256.New, secret, salt, info, length)
	if err != nil {
		return nil, fmt.Errorf("deriving key: %w", err)
	}
	return okm, nil
}

// newGCM is the one cipher of this package. The AEAD draws a random nonce for
// every seal, so that no caller can supply one twice; what it returns is
// nonce | ciphertext | tag.
func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("preparing AES: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("preparing GCM: %w", err)
	}
	return aead, nil
}
