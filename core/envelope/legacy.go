package envelope

import (
	"bytes"
	"crypto/cipher"
	"errors"
	"slices"
	"unicode/utf8"

	"github.com/lockwood-kms/lockwood/core"
)

// legacyInfo is upstream's; the derivation must equal its own.
const legacyInfo = "forest-executor:mcp-oauth-credentials"

// legacyOverhead is how many bytes a legacy record is longer than its plaintext:
// nonce(12) | tag(16) | ciphertext.
const legacyOverhead = nonceSize + tagSize

// LegacyKey seals and opens records in the format of the upstream executor. A
// legacy record names no key and has no aad: it opens in any row. It is read so
// that a database can be taken over, and written only on request. A LegacyKey
// is safe for concurrent use.
type LegacyKey struct{ aead cipher.AEAD }

// NewLegacyKey derives the key as upstream does from the bytes of the
// environment variable, however weak: bytes that are not UTF-8 count as U+FFFD
// (see DecodeUTF8), nothing is trimmed. It returns core.ErrKeyMissing for an
// empty value, and an error under GODEBUG=fips140=only for one below 14 bytes.
func NewLegacyKey(value []byte) (*LegacyKey, error) {
	if len(value) == 0 {
		return nil, core.ErrKeyMissing
	}
	secret := DecodeUTF8(value)
	defer clear(secret)
	key, err := hkdfSHA256(secret, nil, legacyInfo, 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	aead, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	return &LegacyKey{aead}, nil
}

// Seal appends to dst the legacy record of plaintext and returns the longer
// slice. The part of dst behind its length must not overlap plaintext.
//
// A nonce that looks like the magic of a record with a header, one in 2^24, is
// drawn again, so that counting records by their first bytes counts right.
func (k *LegacyKey) Seal(dst, plaintext []byte) []byte {
	start := len(dst)
	dst = k.aead.Seal(dst, nil, plaintext, nil)
	for bytes.HasPrefix(dst[start:], []byte(magicPrefix)) {
		dst = k.aead.Seal(dst[:start], nil, plaintext, nil)
	}
	// nonce | ciphertext | tag  →  nonce | tag | ciphertext
	body := dst[start+nonceSize:]
	var tag [tagSize]byte
	copy(tag[:], body[len(plaintext):])
	copy(body[tagSize:], body[:len(plaintext)])
	copy(body, tag[:])
	return dst
}

// Open appends to dst the plaintext of a legacy record and returns the longer
// slice. It returns core.ErrInvalidCiphertext if the record is too short for a
// whole nonce and tag (upstream accepts a tag cut down to 4 bytes, which an
// attacker could guess) or does not open. The part of dst behind its length may
// be overwritten even then, and must not overlap record.
func (k *LegacyKey) Open(dst, record []byte) ([]byte, error) {
	if len(record) < legacyOverhead {
		return nil, errOpen
	}
	nonce, tag, ciphertext := record[:nonceSize], record[nonceSize:legacyOverhead], record[legacyOverhead:]
	out, err := k.aead.Open(dst, nil, slices.Concat(nonce, ciphertext, tag), nil)
	if err != nil {
		return nil, errOpen
	}
	return out, nil
}

// LegacyKeys opens under the first of several keys that fits, which a value of a
// legacy record does not tell. It is safe for concurrent use.
type LegacyKeys []*LegacyKey

// Open is LegacyKey.Open under each key in turn.
func (keys LegacyKeys) Open(dst, record []byte) ([]byte, error) {
	for _, k := range keys {
		out, err := k.Open(dst, record)
		if !errors.Is(err, core.ErrInvalidCiphertext) {
			return out, err
		}
	}
	return nil, errOpen
}

// DecodeUTF8 returns b with each maximal subpart of an ill-formed sequence
// replaced by one U+FFFD, as the WHATWG Encoding Standard's UTF-8 decoder does
// and so the upstream executor, but for a byte order mark, which stays. Go's own
// conversions replace every byte, or every run of bytes, and would derive other
// keys.
func DecodeUTF8(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		if r == utf8.RuneError && size == 1 {
			size = maximalSubpart(b)
			out = append(out, "\uFFFD"...)
		} else {
			out = append(out, b[:size]...)
		}
		b = b[size:]
	}
	return out
}

// maximalSubpart returns how many bytes of the ill-formed sequence at the start
// of b could have begun a well-formed one; at least 1. The bounds of the second
// byte are those of Table 3-7 of the Unicode Standard.
func maximalSubpart(b []byte) int {
	var need int
	low, high := byte(0x80), byte(0xBF)
	switch lead := b[0]; {
	case lead >= 0xC2 && lead <= 0xDF:
		need = 2
	case lead >= 0xE0 && lead <= 0xEF:
		need = 3
		if lead == 0xE0 {
			low = 0xA0
		} else if lead == 0xED {
			high = 0x9F
		}
	case lead >= 0xF0 && lead <= 0xF4:
		need = 4
		if lead == 0xF0 {
			low = 0x90
		} else if lead == 0xF4 {
			high = 0x8F
		}
	default:
		return 1
	}
	n := 1
	for n < need && n < len(b) && b[n] >= low && b[n] <= high {
		low, high = 0x80, 0xBF
		n++
	}
	return n
}
