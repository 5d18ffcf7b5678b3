package envelope

import (
	"encoding/binary"
	"errors"
	"strings"
)

// ErrNUL means that a value bound as aad holds a NUL character. PostgreSQL cannot
// store one in text, and whatever replaces it would collide with another value.
var ErrNUL = errors.New("encoding aad: a value holds a NUL character")

// AAD encodes the additional authenticated data of a record: a list of strings,
// each behind its length so that no two lists encode alike, optional ones
// behind a presence byte so that "absent" and "empty" differ. The first names
// the purpose, and with it what the others are.
type AAD struct {
	b   []byte
	nul bool
}

// NewAAD begins an encoding of purpose in buf, whose contents are overwritten and
// whose capacity is reused.
func NewAAD(buf []byte, purpose string) AAD {
	a := AAD{b: buf[:0]}
	a.Add(purpose)
	return a
}

// Add appends a string, exactly as it is stored.
func (a *AAD) Add(s string) {
	a.nul = a.nul || strings.IndexByte(s, 0) >= 0
	a.b = binary.BigEndian.AppendUint32(a.b, uint32(len(s)))
	a.b = append(a.b, s...)
}

// AddOptional appends a string that may be absent.
func (a *AAD) AddOptional(s *string) {
	if s == nil {
		a.b = append(a.b, 0)
		return
	}
	a.b = append(a.b, 1)
	a.Add(*s)
}

// Bytes returns the encoding, which shares the buffer, or ErrNUL.
func (a *AAD) Bytes() ([]byte, error) {
	if a.nul {
		return nil, ErrNUL
	}
	return a.b, nil
}
