package envelope

import (
	"fmt"
	"slices"

	"github.com/lockwood-kms/lockwood/core"
)

// The layout of a format-1 record; offsets in bytes.
//
//	 0  4  magic
//	 4 16  key ID
//	20 12  nonce
//	32  n  ciphertext
//	 …  16 tag
const (
	// magicPrefix begins the magic of every format, this one and any later one.
	magicPrefix = "LKW"
	magic       = magicPrefix + "1"

	nonceSize = 12
	tagSize   = 16

	headerSize = len(magic) + KeyIDSize

	// Overhead is how many bytes a format-1 record is longer than its plaintext.
	Overhead = headerSize + nonceSize + tagSize
)

// ParseHeader returns the key ID in the header of a format-1 record. ok is false
// if record does not start with the magic or is too short to be one; a record
// that does not start with the magic can only be legacy.
func ParseHeader(record []byte) (id KeyID, ok bool) {
	if len(record) < Overhead || string(record[:len(magic)]) != magic {
		return KeyID{}, false
	}
	return KeyID(record[len(magic):headerSize]), true
}

// Seal appends to dst the record of plaintext, bound to aad, and returns the
// longer slice. The record is Overhead bytes longer than plaintext. With enough
// capacity in dst it does not allocate. The part of dst behind its length must
// overlap neither plaintext nor aad.
func (k *Key) Seal(dst, plaintext, aad []byte) []byte {
	start := len(dst)
	dst = slices.Grow(dst, Overhead+len(plaintext))
	// The header goes in last: where the buffers do overlap, the cipher panics
	// before anything is overwritten, and a secret is not silently sealed wrong.
	dst = k.aead.Seal(dst[:start+headerSize], nil, plaintext, aad)
	copy(dst[start:], magic)
	copy(dst[start+len(magic):], k.id[:])
	return dst
}

// Open appends to dst the plaintext of a format-1 record and returns the longer
// slice. It returns core.ErrInvalidCiphertext, and never any plaintext, if the
// record is not one of this key, has been altered, or is bound to other aad. With
// enough capacity in dst it does not allocate. The part of dst behind its length
// may be overwritten even then, and must overlap neither record nor aad.
func (k *Key) Open(dst, record, aad []byte) ([]byte, error) {
	id, ok := ParseHeader(record)
	if !ok || id != k.id {
		return nil, errOpen
	}
	out, err := k.aead.Open(dst, nil, record[headerSize:], aad)
	if err != nil {
		return nil, errOpen // the standard library's error says no more
	}
	return out, nil
}

// errOpen is the one answer to every record that does not open.
var errOpen = fmt.Errorf("opening record: %w", core.ErrInvalidCiphertext)
