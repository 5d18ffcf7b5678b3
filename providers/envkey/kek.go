package envkey

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/lockwood-kms/lockwood/core"
)

// The infos of the two derivations (RFC 5869 section 3.2); docs/format.md holds
// them too.
const (
	kekInfo = "lockwood/1 envkey kek"
	idInfo  = "lockwood/1 envkey id"
)

const (
	idSize    = 8
	nonceSize = 12
	tagSize   = 16

	// wrappedSize is the length of nonce | ciphertext | tag.
	wrappedSize = nonceSize + core.DataKeySize + tagSize
)

// minFIPSSize is the shortest HKDF key, in bytes, that Go's FIPS 140-3 module
// takes under GODEBUG=fips140=only: 112 bits, NIST SP 800-131A section 8.
const minFIPSSize = 14

var (
	errNotUTF8   = errors.New("the value is not UTF-8")
	errFIPSShort = fmt.Errorf("the value is shorter than %d bytes, the least that FIPS 140-3 allows", minFIPSSize)
)

// kek wraps and unwraps data keys under the key of one value. It is safe for
// concurrent use.
type kek struct {
	id   core.KEKID
	aead cipher.AEAD
}

// newKEK derives the KEK and its ID from value, which it does not keep. It
// returns errNotUTF8 or errFIPSShort for a value that cannot be one.
func newKEK(value []byte) (*kek, error) {
	id, err := kekID(value)
	if err != nil {
		return nil, err
	}
	key, err := hkdf.Key(sha256.New, value, nil, kekInfo, 32)
	if err != nil {
		return nil, fmt.Errorf("deriving KEK: %w", err)
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("preparing AES: %w", err)
	}
	// Draws a random nonce for every wrap, so that none can be given twice. A KEK
	// wraps a few data keys in its life; NIST SP 800-38D section 8.3 allows 2^32.
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("preparing GCM: %w", err)
	}
	return &kek{id: id, aead: aead}, nil
}

// kekID derives the KEK ID alone.
func kekID(value []byte) (core.KEKID, error) {
	if !utf8.Valid(value) {
		return "", errNotUTF8
	}
	if tooShortForFIPS(value) {
		return "", errFIPSShort
	}
	id, err := hkdf.Key(sha256.New, value, nil, idInfo, idSize)
	if err != nil {
		return "", fmt.Errorf("deriving KEK ID: %w", err)
	}
	return core.NewKEKID(Scheme+":"+hex.EncodeToString(id), ""), nil
}

func tooShortForFIPS(value []byte) bool {
	return fips140.Enforced() && len(value) < minFIPSSize
}

// wrap returns nonce | ciphertext | tag.
func (k *kek) wrap(dataKey []byte, aad core.AAD) (core.WrappedKey, error) {
	if len(dataKey) != core.DataKeySize {
		return core.WrappedKey{}, fmt.Errorf("data key of %d bytes, want %d", len(dataKey), core.DataKeySize)
	}
	return core.WrappedKey{KEKID: k.id, Wrapped: k.aead.Seal(nil, nil, dataKey, aad.Bytes())}, nil
}

// unwrap returns core.ErrInvalidCiphertext for everything that this KEK did not
// wrap under this aad.
func (k *kek) unwrap(w core.WrappedKey, aad core.AAD) ([]byte, error) {
	if w.KEKID != k.id || len(w.Wrapped) != wrappedSize {
		return nil, core.ErrInvalidCiphertext
	}
	dataKey, err := k.aead.Open(nil, nil, w.Wrapped, aad.Bytes())
	if err != nil {
		return nil, core.ErrInvalidCiphertext // the standard library's error says no more
	}
	return dataKey, nil
}

// generate returns a fresh data key and its wrap.
func (k *kek) generate(aad core.AAD) (core.DataKey, error) {
	plaintext := make([]byte, core.DataKeySize)
	rand.Read(plaintext) // never fails: the runtime ends the process instead
	wrapped, err := k.wrap(plaintext, aad)
	if err != nil {
		return core.DataKey{}, err
	}
	return core.DataKey{Plaintext: plaintext, Wrapped: wrapped}, nil
}

// Generate returns a fresh value for Variable: 64 hexadecimal digits of 32 random
// bytes, as "openssl rand -hex 32" prints them. Showing it once to whoever asked
// for it is its purpose.
func Generate() string {
	b := make([]byte, core.DataKeySize)
	rand.Read(b)
	return hex.EncodeToString(b)
}
