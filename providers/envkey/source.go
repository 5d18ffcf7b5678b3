package envkey

import (
	"fmt"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
)

// material is what one value gives: the KEK, and the key of the records that
// upstream wrote under the same value.
type material struct {
	kek    *kek // nil for a previous value that is not UTF-8
	legacy *envelope.LegacyKey
}

// newMaterial derives both keys from value.
func newMaterial(value []byte) (*material, error) {
	k, err := newKEK(value)
	if err != nil {
		return nil, err
	}
	legacy, err := envelope.NewLegacyKey(value)
	if err != nil {
		return nil, err
	}
	return &material{kek: k, legacy: legacy}, nil
}

// source is where a value comes from.
type source interface {
	// material returns the keys, or an error that wraps core.ErrKeyMissing.
	material() (*material, error)
	// warnings are what an operator should know of the source by now.
	warnings() []string
}

// fixed is a value that was there at the start.
type fixed struct{ m *material }

func (f fixed) material() (*material, error) { return f.m, nil }
func (fixed) warnings() []string             { return nil }

// absent is no value at all.
type absent struct{}

func (absent) material() (*material, error) {
	return nil, fmt.Errorf("neither %s nor %s is set: %w", Variable, FileVariable, core.ErrKeyMissing)
}
func (absent) warnings() []string { return nil }
