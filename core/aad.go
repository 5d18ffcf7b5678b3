package core

import "encoding/binary"

// AAD is additional authenticated data for a wrap: named values in a fixed
// order. A provider either binds the encoded bytes, or, where the service wants
// named pairs (the encryption context of AWS KMS), the pairs themselves.
type AAD []AADField

// AADField is one named value of an AAD.
type AADField struct {
	// Name identifies the value where a service wants pairs. It is not part of
	// the encoded bytes; the position is.
	Name string
	// Value holds no NUL and is no secret.
	Value string
}

// WrapPurpose is the first value of every wrap's aad, so that no ciphertext
// made for another purpose can stand for a wrapped data key.
const WrapPurpose = "lockwood/1 data key"

// WrapAAD returns the aad of a wrapped data key: the purpose, the store it
// belongs to and its version in that store, in decimal. A wrap moved to another
// store, or to another data key of the same store, does not unwrap.
func WrapAAD(storeID, version string) AAD {
	return AAD{
		{Name: "purpose", Value: WrapPurpose},
		{Name: "store", Value: storeID},
		{Name: "version", Value: version},
	}
}

// Bytes encodes the values: each as its length, 4 bytes big-endian, and its
// bytes. Lengths come first so that no two lists of values encode alike.
func (a AAD) Bytes() []byte {
	size := 0
	for _, f := range a {
		size += 4 + len(f.Value)
	}
	b := make([]byte, 0, size)
	for _, f := range a {
		b = binary.BigEndian.AppendUint32(b, uint32(len(f.Value)))
		b = append(b, f.Value...)
	}
	return b
}

// Map returns the values by name.
func (a AAD) Map() map[string]string {
	m := make(map[string]string, len(a))
	for _, f := range a {
		m[f.Name] = f.Value
	}
	return m
}
