package envelope

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
)

// ErrNUL means that a value bound as aad holds a NUL character. PostgreSQL cannot
// store one in text, and whatever replaces it would collide with another value.
var ErrNUL = errors.New("encoding aad: a value holds a NUL character")

// errTooLong keeps a length from wrapping around in its 4 bytes, after which two
// lists could encode alike.
var errTooLong = errors.New("encoding aad: a value is longer than 4 GiB")

// AAD encodes the additional authenticated data of a record: a list of strings,
// each behind its length so that none runs into the next, optional ones behind a
// presence byte so that "absent" and "empty" differ. The first names the purpose,
// and with it which strings follow, in which order, and which of them are
// optional; two lists of one purpose never encode alike (docs/format.md, section
// 4). The zero value is not for use; see NewAAD.
type AAD struct {
	b   []byte
	err error
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
	if strings.IndexByte(s, 0) >= 0 {
		a.err = ErrNUL
	} else if uint64(len(s)) > math.MaxUint32 {
		a.err = errTooLong
	}
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

// Bytes returns the encoding, which shares the buffer. It returns ErrNUL if a
// value holds a NUL character, and an error if one is longer than 4 GiB.
func (a *AAD) Bytes() ([]byte, error) {
	if a.err != nil {
		return nil, a.err
	}
	return a.b, nil
}
