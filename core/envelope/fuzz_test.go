package envelope_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
)

// needCorpus fails if the seeds of a fuzz test are gone: without them "go test"
// would run it on nothing.
func needCorpus(f *testing.F) {
	f.Helper()
	seeds, err := os.ReadDir(filepath.Join("testdata", "fuzz", f.Name()))
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seed corpus for %s: %v", f.Name(), err)
	}
}

// FuzzOpen feeds foreign bytes to everything that reads a record, under the keys
// of the vectors. Nothing may open but the records that the vectors hold.
func FuzzOpen(f *testing.F) {
	needCorpus(f)
	v := loadFormat1(f)
	atLeast(f, len(v.Valid)+len(v.Invalid), 60)
	var keys []*envelope.Key
	for _, k := range v.Keys {
		keys = append(keys, newKey(f, k.DataKey))
	}
	s := envelope.NewSnapshot(keys[0], keys[1:], legacyKeys(f, "a value of some length"))
	sealed := map[string]string{} // the aad of each record that opens
	for _, c := range v.Valid {
		sealed[string(c.Record)] = string(v.aad(f, c.AAD))
		f.Add([]byte(c.Record), v.aad(f, c.AAD))
	}
	for _, c := range v.Invalid {
		f.Add([]byte(c.Record), v.aad(f, c.AAD))
	}
	f.Fuzz(func(t *testing.T, record, aad []byte) {
		id, ok := envelope.ParseHeader(record)
		if magic := bytes.HasPrefix(record, []byte("LKW1")) && len(record) >= envelope.Overhead; ok != magic {
			t.Fatalf("ParseHeader says %v of a record that has a header: %v", ok, magic)
		}
		if ok && !bytes.Equal(id[:], record[4:20]) {
			t.Fatalf("ParseHeader = %s, the header holds %x", id, record[4:20])
		}
		before := bytes.Clone(record)
		out, _, err := s.Open(nil, record, aad)
		if !bytes.Equal(record, before) {
			t.Fatal("Open changed the record")
		}
		if want, ok := sealed[string(record)]; (err == nil) != (ok && want == string(aad)) {
			t.Fatalf("Open: %v; the record was sealed with this aad: %v", err, ok && want == string(aad))
		}
		if err != nil && (out != nil || !errors.Is(err, core.ErrInvalidCiphertext) && !errors.Is(err, envelope.ErrUnknownKey)) {
			t.Fatalf("Open = %d bytes, %v", len(out), err)
		}
		if unknown := ok && !s.Has(id); errors.Is(err, envelope.ErrUnknownKey) != unknown {
			t.Fatalf("Open: %v, the key ID is unknown: %v", err, unknown)
		}
	})
}

// FuzzLegacyOpen does the same for the legacy format, and checks that whatever is
// sealed opens again.
func FuzzLegacyOpen(f *testing.F) {
	needCorpus(f)
	v := loadLegacy(f)
	atLeast(f, len(v.Vectors)+len(v.Negative), 100)
	for _, c := range v.Vectors {
		f.Add([]byte(c.Ciphertext))
	}
	for _, c := range v.Negative {
		f.Add([]byte(c.Ciphertext))
	}
	k := legacyKeys(f, "a value of some length")[0]
	f.Fuzz(func(t *testing.T, data []byte) {
		if out, err := k.Open(nil, data); !errors.Is(err, core.ErrInvalidCiphertext) || out != nil {
			t.Fatalf("Open = %d bytes, %v; want ErrInvalidCiphertext", len(out), err)
		}
		if out, err := k.Open(nil, k.Seal(nil, data)); err != nil || !bytes.Equal(out, data) {
			t.Fatalf("opening what was sealed: %v", err)
		}
	})
}

// FuzzDecodeUTF8 compares with the decoder that the WHATWG Encoding Standard
// writes down as a state machine.
func FuzzDecodeUTF8(f *testing.F) {
	needCorpus(f)
	v := loadLegacy(f)
	atLeast(f, len(v.EnvDecoding), 17)
	for _, c := range v.EnvDecoding {
		f.Add([]byte(c.Value))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got := envelope.DecodeUTF8(b)
		if want := whatwgDecode(b); !bytes.Equal(got, want) {
			t.Fatalf("DecodeUTF8(%x) = %x, the standard's decoder %x", b, got, want)
		}
		if !utf8.Valid(got) || !bytes.Equal(envelope.DecodeUTF8(got), got) {
			t.Fatalf("DecodeUTF8(%x) = %x is not UTF-8, or decodes to something else", b, got)
		}
		if utf8.Valid(b) && !bytes.Equal(got, b) {
			t.Fatalf("DecodeUTF8 changed %x, which is UTF-8", b)
		}
	})
}

// whatwgDecode is the "UTF-8 decoder" of the WHATWG Encoding Standard, section
// 8.1.1, step by step, with its variables' names.
func whatwgDecode(input []byte) []byte {
	var out []rune
	var codePoint rune
	var bytesSeen, bytesNeeded int
	lower, upper := byte(0x80), byte(0xBF)
	for i := 0; i < len(input); i++ {
		b := input[i]
		if bytesNeeded == 0 {
			switch {
			case b <= 0x7F:
				out = append(out, rune(b))
			case 0xC2 <= b && b <= 0xDF:
				bytesNeeded, codePoint = 1, rune(b&0x1F)
			case 0xE0 <= b && b <= 0xEF:
				if b == 0xE0 {
					lower = 0xA0
				}
				if b == 0xED {
					upper = 0x9F
				}
				bytesNeeded, codePoint = 2, rune(b&0xF)
			case 0xF0 <= b && b <= 0xF4:
				if b == 0xF0 {
					lower = 0x90
				}
				if b == 0xF4 {
					upper = 0x8F
				}
				bytesNeeded, codePoint = 3, rune(b&0x7)
			default:
				out = append(out, utf8.RuneError)
			}
			continue
		}
		if b < lower || b > upper {
			codePoint, bytesNeeded, bytesSeen, lower, upper = 0, 0, 0, 0x80, 0xBF
			out = append(out, utf8.RuneError)
			i-- // the byte is read again
			continue
		}
		lower, upper = 0x80, 0xBF
		codePoint = codePoint<<6 | rune(b&0x3F)
		if bytesSeen++; bytesSeen == bytesNeeded {
			out = append(out, codePoint)
			codePoint, bytesNeeded, bytesSeen = 0, 0, 0
		}
	}
	if bytesNeeded != 0 { // the end of the input inside a sequence
		out = append(out, utf8.RuneError)
	}
	return []byte(string(out))
}

// FuzzAAD encodes lists of strings, some optional, and decodes them again: two
// lists of the same kinds that encode alike would not both come back.
func FuzzAAD(f *testing.F) {
	needCorpus(f)
	f.Add("purpose", "a", "b", true, "c", false)
	f.Add("", "", "", false, "", true)
	f.Add("p", "\x01\x01", "\x02", true, "\x01", true)
	f.Fuzz(func(t *testing.T, purpose, one, two string, hasTwo bool, three string, hasThree bool) {
		want := []*string{&purpose, &one, optional(two, hasTwo), optional(three, hasThree)}
		aad := envelope.NewAAD(nil, purpose)
		aad.Add(one)
		aad.AddOptional(want[2])
		aad.AddOptional(want[3])
		encoded, err := aad.Bytes()
		if nul := anyNUL(want); nul != errors.Is(err, envelope.ErrNUL) {
			t.Fatalf("Bytes: %v, a value holds NUL: %v", err, nul)
		} else if nul {
			return
		}
		got, rest, ok := decodeAAD(encoded, "ssoo")
		if !ok || len(rest) != 0 {
			t.Fatalf("%x does not decode", encoded)
		}
		for i := range want {
			if (got[i] == nil) != (want[i] == nil) || got[i] != nil && *got[i] != *want[i] {
				t.Fatalf("value %d came back as another", i)
			}
		}
	})
}

func optional(s string, present bool) *string {
	if !present {
		return nil
	}
	return &s
}

func anyNUL(values []*string) bool {
	for _, v := range values {
		if v != nil && strings.IndexByte(*v, 0) >= 0 {
			return true
		}
	}
	return false
}

// FuzzParseKeyID checks that what parses is 16 bytes and comes back as it was, in
// lower case.
func FuzzParseKeyID(f *testing.F) {
	needCorpus(f)
	f.Fuzz(func(t *testing.T, s string) {
		id, err := envelope.ParseKeyID(s)
		if err != nil {
			if !id.IsZero() {
				t.Fatalf("ParseKeyID(%q) = %s beside an error", s, id)
			}
			return
		}
		if id.String() != strings.ToLower(s) || len(s) != 2*envelope.KeyIDSize {
			t.Fatalf("ParseKeyID(%q) = %s", s, id)
		}
	})
}
