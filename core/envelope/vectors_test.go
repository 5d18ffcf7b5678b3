package envelope_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
)

// hexBytes is bytes that stand as hexadecimal digits in a vector file.
type hexBytes []byte

// UnmarshalText decodes hexadecimal digits.
func (b *hexBytes) UnmarshalText(text []byte) error {
	*b = make([]byte, hex.DecodedLen(len(text)))
	_, err := hex.Decode(*b, text)
	return err
}

// aadValue is a string of an aad, or an optional one.
type aadValue struct {
	optional bool
	value    *string
}

// UnmarshalJSON takes a string, or {"optional": string or null}.
func (v *aadValue) UnmarshalJSON(data []byte) error {
	if data[0] == '"' {
		return json.Unmarshal(data, &v.value)
	}
	var o struct {
		Optional *string `json:"optional"`
	}
	v.optional = true
	err := json.Unmarshal(data, &o)
	v.value = o.Optional
	return err
}

// format1File is testdata/format1.json.
type format1File struct {
	Keys []struct {
		Name      string
		DataKey   hexBytes `json:"data_key"`
		RecordKey hexBytes `json:"record_key"`
		KeyID     hexBytes `json:"key_id"`
	}
	AAD []struct {
		Name   string
		Values []aadValue
		AAD    hexBytes
	}
	AADRefused [][]aadValue `json:"aad_refused"`
	Valid      []format1Case
	Invalid    []format1Case
}

type format1Case struct {
	Name, Key, AAD string
	Nonce          hexBytes
	Plaintext      hexBytes
	Record         hexBytes
}

// dataKey returns the data key named name.
func (f *format1File) dataKey(t testing.TB, name string) []byte {
	t.Helper()
	for _, k := range f.Keys {
		if k.Name == name {
			return k.DataKey
		}
	}
	t.Fatalf("format1.json names data key %q, which it does not hold", name)
	return nil
}

// aad returns the encoded aad named name.
func (f *format1File) aad(t testing.TB, name string) []byte {
	t.Helper()
	for _, a := range f.AAD {
		if a.Name == name {
			return a.AAD
		}
	}
	t.Fatalf("format1.json names aad %q, which it does not hold", name)
	return nil
}

func loadFormat1(t testing.TB) *format1File {
	t.Helper()
	var f format1File
	loadVectors(t, "format1.json", &f)
	return &f
}

func loadVectors(t testing.TB, name string, into any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func newKey(t testing.TB, dataKey []byte) *envelope.Key {
	t.Helper()
	k, err := envelope.NewKey(dataKey)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func encodeAAD(values []aadValue) ([]byte, error) {
	if len(values) == 0 {
		return nil, nil
	}
	aad := envelope.NewAAD(nil, *values[0].value)
	for _, v := range values[1:] {
		if v.optional {
			aad.AddOptional(v.value)
		} else {
			aad.Add(*v.value)
		}
	}
	return aad.Bytes()
}

func TestFormat1Derivation(t *testing.T) {
	f := loadFormat1(t)
	atLeast(t, len(f.Keys), 4)
	for _, k := range f.Keys {
		if id := newKey(t, k.DataKey).ID(); !bytes.Equal(id[:], k.KeyID) {
			t.Errorf("key ID of data key %q = %s, want %x", k.Name, id, k.KeyID)
		}
		okm, err := envelope.HKDFSHA256(k.DataKey, nil, "lockwood/1 record", 48)
		if err != nil {
			t.Fatal(err)
		}
		if want := append(bytes.Clone(k.RecordKey), k.KeyID...); !bytes.Equal(okm, want) {
			t.Errorf("derivation from data key %q is not that of the vector", k.Name)
		}
	}
}

func TestFormat1AAD(t *testing.T) {
	f := loadFormat1(t)
	atLeast(t, len(f.AAD), 15)
	seen := map[string]string{}
	for _, a := range f.AAD {
		got, err := encodeAAD(a.Values)
		if err != nil || !bytes.Equal(got, a.AAD) {
			t.Errorf("%s: encoding = %x, %v; want %x", a.Name, got, err, a.AAD)
		}
		if other, twice := seen[string(a.AAD)]; twice {
			t.Errorf("%s and %s encode alike", a.Name, other)
		}
		seen[string(a.AAD)] = a.Name
	}
	atLeast(t, len(f.AADRefused), 3)
	for _, values := range f.AADRefused {
		if got, err := encodeAAD(values); !errors.Is(err, envelope.ErrNUL) || got != nil {
			t.Errorf("encoding a value with NUL = %x, %v; want ErrNUL", got, err)
		}
	}
}

func TestFormat1Valid(t *testing.T) {
	f := loadFormat1(t)
	atLeast(t, len(f.Valid), 20)
	for _, c := range f.Valid {
		t.Run(c.Name, func(t *testing.T) {
			k, aad := newKey(t, f.dataKey(t, c.Key)), f.aad(t, c.AAD)
			got, err := k.Open(nil, c.Record, aad)
			if err != nil || !bytes.Equal(got, c.Plaintext) {
				t.Fatalf("Open: %v; the plaintext is not that of the vector", err)
			}
			if want := len(c.Plaintext) + envelope.Overhead; len(c.Record) != want {
				t.Errorf("record of %d bytes, want %d", len(c.Record), want)
			}
			if id, ok := envelope.ParseHeader(c.Record); !ok || id != k.ID() {
				t.Errorf("ParseHeader = %s, %v; want %s", id, ok, k.ID())
			}
			// The cipher draws its own nonces, so a seal cannot be compared with the
			// vector; that it opens, and is laid out alike, can.
			again, err := k.Open(nil, k.Seal(nil, c.Plaintext, aad), aad)
			if err != nil || !bytes.Equal(again, c.Plaintext) {
				t.Errorf("opening what was sealed anew: %v", err)
			}
		})
	}
}

func TestFormat1Invalid(t *testing.T) {
	f := loadFormat1(t)
	atLeast(t, len(f.Invalid), 40)
	for _, c := range f.Invalid {
		t.Run(c.Name, func(t *testing.T) {
			k, aad := newKey(t, f.dataKey(t, c.Key)), f.aad(t, c.AAD)
			if got, err := k.Open(nil, c.Record, aad); !errors.Is(err, core.ErrInvalidCiphertext) || got != nil {
				t.Errorf("Key.Open = %d bytes, %v; want ErrInvalidCiphertext", len(got), err)
			}
			s := envelope.NewSnapshot(k, nil, nil)
			got, _, err := s.Open(nil, c.Record, aad)
			if err == nil || got != nil {
				t.Errorf("Snapshot.Open = %d bytes, %v; want an error", len(got), err)
			}
		})
	}
}

func TestReading(t *testing.T) {
	var f struct {
		Primary hexBytes
		Enabled []hexBytes
		AAD     hexBytes
		Cases   []struct {
			Name      string
			Legacy    []string
			Record    hexBytes
			Want      string
			Stale     bool
			Plaintext hexBytes
		}
	}
	loadVectors(t, "reading.json", &f)
	atLeast(t, len(f.Cases), 15)
	outcomes := map[string]error{"plaintext": nil, "unknown key": envelope.ErrUnknownKey, "invalid": core.ErrInvalidCiphertext}
	for _, c := range f.Cases {
		t.Run(c.Name, func(t *testing.T) {
			var enabled []*envelope.Key
			for _, k := range f.Enabled {
				enabled = append(enabled, newKey(t, k))
			}
			s := envelope.NewSnapshot(newKey(t, f.Primary), enabled, legacyKeys(t, c.Legacy...))
			want, known := outcomes[c.Want]
			if !known {
				t.Fatalf("the vector wants %q, which is no outcome", c.Want)
			}
			got, stale, err := s.Open(nil, c.Record, f.AAD)
			if !errors.Is(err, want) || !bytes.Equal(got, c.Plaintext) {
				t.Fatalf("Open: %v, want %v", err, want)
			}
			if err == nil && stale != c.Stale {
				t.Errorf("stale = %v, want %v", stale, c.Stale)
			}
		})
	}
}

func legacyKeys(t testing.TB, values ...string) (keys envelope.LegacyKeys) {
	t.Helper()
	for _, v := range values {
		k, err := envelope.NewLegacyKey([]byte(v))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	return keys
}

// atLeast fails if a file of vectors has lost some: a loop over none passes.
func atLeast(t testing.TB, n, want int) {
	t.Helper()
	if n < want {
		t.Fatalf("%d vectors, want at least %d", n, want)
	}
}
