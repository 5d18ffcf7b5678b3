package core

import (
	"context"
	"strings"
)

// DataKeySize is the length of a data key in bytes.
const DataKeySize = 32

// Limits of what a provider may return, in bytes. They bound what is stored and
// what crosses a process boundary.
const (
	// MaxKEKIDSize bounds a KEK ID. The longest names of the public clouds are
	// below 500 bytes.
	MaxKEKIDSize = 1024
	// MaxWrappedSize bounds the bytes of one wrapped data key.
	MaxWrappedSize = 16 << 10
)

// KEKID names the exact version of a KEK as "key#version". What stands for the
// key and what for the version is the provider's; neither part is a secret.
type KEKID string

// NewKEKID joins a key and its version. An empty version is allowed, for a KEK
// that has no versions, and leaves out the '#'.
func NewKEKID(key, version string) KEKID {
	if version == "" {
		return KEKID(key)
	}
	return KEKID(key + "#" + version)
}

// Key returns the part before the last '#', which names the key whatever its
// version.
func (id KEKID) Key() string {
	if i := strings.LastIndexByte(string(id), '#'); i >= 0 {
		return string(id[:i])
	}
	return string(id)
}

// Version returns the part after the last '#', or "".
func (id KEKID) Version() string {
	if i := strings.LastIndexByte(string(id), '#'); i >= 0 {
		return string(id[i+1:])
	}
	return ""
}

// WrappedKey is a data key as one KEK wrapped it: what a store keeps.
type WrappedKey struct {
	// KEKID is the exact KEK version that wrapped.
	KEKID KEKID
	// Wrapped is the provider's ciphertext, at most MaxWrappedSize bytes.
	Wrapped []byte
}

// DataKey is a fresh data key, in plaintext and wrapped. Whoever receives one
// clears Plaintext once it is no longer needed.
type DataKey struct {
	Plaintext SecretBytes // DataKeySize bytes
	Wrapped   WrappedKey
}

// Status is what a provider says of its KEK.
type Status struct {
	// KEKID is the KEK version that wraps now.
	KEKID KEKID
	// Warnings are conditions an operator should know of, such as a deletion
	// that is scheduled. They hold no secret.
	Warnings []string
}

// Wrapper wraps data keys. It is all that a recovery KEK has to do: its private
// half may be offline.
type Wrapper interface {
	// WrapDataKey wraps dataKey, DataKeySize bytes, bound to aad, under the
	// provider's current KEK version. It keeps no reference to either argument.
	//
	// It returns ErrKeyMissing, ErrKeyDenied or ErrUnavailable.
	WrapDataKey(ctx context.Context, dataKey []byte, aad AAD) (WrappedKey, error)
}

// KeyProvider holds a KEK and supplies data keys wrapped under it.
// Implementations are safe for concurrent use, never log or return key
// material other than as documented, and honour the context's deadline.
//
// Every method returns ErrKeyMissing while no key is configured, ErrKeyDenied
// where the provider answers that the key may not be used, and ErrUnavailable
// where it does not answer; errors wrap these sentinels.
type KeyProvider interface {
	Wrapper

	// GenerateDataKey returns DataKeySize fresh random bytes, and the same
	// bytes wrapped and bound to aad.
	GenerateDataKey(ctx context.Context, aad AAD) (DataKey, error)

	// UnwrapDataKey returns the data key inside wrapped, DataKeySize bytes that
	// belong to the caller, whatever the version of this provider's key it was
	// wrapped under.
	//
	// It returns ErrInvalidCiphertext if wrapped is corrupt, was wrapped by
	// another key, or is bound to other aad.
	UnwrapDataKey(ctx context.Context, wrapped WrappedKey, aad AAD) ([]byte, error)

	// Status names the KEK version that wraps now and reports whether
	// unwrapping is permitted, as a nil error or ErrKeyDenied, without
	// releasing a plaintext and without a cryptographic call that is billed.
	Status(ctx context.Context) (Status, error)

	// Close releases what the provider holds. Other methods fail after it.
	// It may be called more than once.
	Close() error
}
