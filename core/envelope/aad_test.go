package envelope_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/lockwood-kms/lockwood/core/envelope"
)

// TestAADReusesBuffer asserts that the buffer's contents go, its capacity stays.
func TestAADReusesBuffer(t *testing.T) {
	buf := append(make([]byte, 0, 64), "what stood here before"...)
	aad := envelope.NewAAD(buf, "p")
	aad.AddOptional(nil)
	aad.AddOptional(new("x"))
	got, err := aad.Bytes()
	if want := []byte("\x00\x00\x00\x01p\x00\x01\x00\x00\x00\x01x"); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("encoding = %q, %v; want %q", got, err, want)
	}
	if &got[0] != &buf[0] {
		t.Error("the buffer was not reused")
	}
}

// TestAADRefusesNUL asserts that a NUL anywhere is refused, and stays refused.
func TestAADRefusesNUL(t *testing.T) {
	for name, add := range map[string]func(*envelope.AAD){
		"string":   func(a *envelope.AAD) { a.Add("a\x00") },
		"optional": func(a *envelope.AAD) { a.AddOptional(new("\x00")) },
	} {
		aad := envelope.NewAAD(nil, "p")
		add(&aad)
		aad.Add("a later one that is in order")
		if got, err := aad.Bytes(); !errors.Is(err, envelope.ErrNUL) || got != nil {
			t.Errorf("%s: %q, %v; want ErrNUL", name, got, err)
		}
	}
	aad := envelope.NewAAD(nil, "p\x00")
	if _, err := aad.Bytes(); !errors.Is(err, envelope.ErrNUL) {
		t.Errorf("purpose: %v; want ErrNUL", err)
	}
}

// decodeAAD is the inverse of the encoding for a list whose kinds are known, one
// letter each: s for a string, o for an optional one. It reports what is left.
func decodeAAD(b []byte, kinds string) (values []*string, rest []byte, ok bool) {
	for _, kind := range kinds {
		if kind == 'o' {
			if len(b) == 0 || b[0] > 1 {
				return nil, nil, false
			}
			present := b[0] == 1
			b = b[1:]
			if !present {
				values = append(values, nil)
				continue
			}
		}
		if len(b) < 4 || uint64(len(b)-4) < uint64(binary.BigEndian.Uint32(b)) {
			return nil, nil, false
		}
		end := 4 + int(binary.BigEndian.Uint32(b))
		values = append(values, new(string(b[4:end])))
		b = b[end:]
	}
	return values, b, true
}
