package age

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"

	agelib "filippo.io/age"

	"github.com/lockwood-kms/lockwood/core"
)

// label begins the plaintext of every wrap, so that no other file that was ever
// encrypted to the recipient can stand for one.
const label = "lockwood/1 age"

// Sizes in bytes: docs/format.md, section 9.4. A wrap has one size for each kind of
// recipient. It bounds what is parsed, and together with the plaintext's leaves no
// room for whatever else could stand in an age file, such as further stanzas.
const (
	boundSize     = len(label) + sha256.Size
	plaintextSize = boundSize + core.DataKeySize

	// frameSize is the header without the type and argument of its one stanza (its
	// body and the MAC are 43 characters of base64 each), and the payload's nonce
	// and tag.
	frameSize = len("age-encryption.org/v1\n"+"-> "+" "+"\n"+"\n"+"--- "+"\n") + 2*43 + 16 + 16

	// The argument is an ephemeral share of 32 bytes, or an encapsulation of 1,120.
	x25519Size = frameSize + len("X25519") + 43 + plaintextSize
	hybridSize = frameSize + len("mlkem768x25519") + 1494 + plaintextSize
)

// bound returns the label and the hash of aad, which gives every wrap one size. Two
// aad of one hash take about 2^128 attempts.
func bound(aad core.AAD) []byte {
	sum := sha256.Sum256(aad.Bytes())
	b := make([]byte, 0, plaintextSize)
	return append(append(b, label...), sum[:]...)
}

// wrap returns an age file of the bound aad and dataKey.
func (r *Recipient) wrap(dataKey []byte, aad core.AAD) (core.WrappedKey, error) {
	if len(dataKey) != core.DataKeySize {
		return core.WrappedKey{}, fmt.Errorf("data key of %d bytes, want %d", len(dataKey), core.DataKeySize)
	}
	plaintext := append(bound(aad), dataKey...)
	defer clear(plaintext)
	var file bytes.Buffer
	if err := encrypt(&file, r.key, plaintext); err != nil {
		return core.WrappedKey{}, fmt.Errorf("encrypting: %w", err)
	}
	// A release of the library that wrote other bytes is noticed here, and not at
	// the recovery.
	if file.Len() != r.size {
		return core.WrappedKey{}, fmt.Errorf("encrypting: age wrote %d bytes, want %d", file.Len(), r.size)
	}
	return core.WrappedKey{KEKID: r.id, Wrapped: file.Bytes()}, nil
}

func encrypt(file io.Writer, to agelib.Recipient, plaintext []byte) error {
	w, err := agelib.Encrypt(file, to)
	if err != nil {
		return err
	}
	if _, err := w.Write(plaintext); err != nil {
		return err
	}
	return w.Close()
}

// unwrap returns core.ErrInvalidCiphertext for everything that was not wrapped for
// this identity under this aad. The errors of the library are dropped: they tell
// apart what must look alike, and quote what they read.
func (i *Identity) unwrap(w core.WrappedKey, aad core.AAD) ([]byte, error) {
	if w.KEKID != i.recipient.id || len(w.Wrapped) != i.recipient.size {
		return nil, core.ErrInvalidCiphertext
	}
	r, err := agelib.Decrypt(bytes.NewReader(w.Wrapped), i.key)
	if err != nil {
		return nil, core.ErrInvalidCiphertext
	}
	// One byte more shows a plaintext that is longer, and reads the payload to its
	// end: the library reports what trails it only there.
	plaintext, err := io.ReadAll(io.LimitReader(r, int64(plaintextSize)+1))
	defer clear(plaintext)
	if err != nil || len(plaintext) != plaintextSize {
		return nil, core.ErrInvalidCiphertext
	}
	if subtle.ConstantTimeCompare(plaintext[:boundSize], bound(aad)) != 1 {
		return nil, core.ErrInvalidCiphertext
	}
	return bytes.Clone(plaintext[boundSize:]), nil
}
