package envelope_test

import (
	"bytes"
	"crypto/cipher"
	"crypto/fips140"
	"errors"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
)

// legacyFile is testdata/legacy.json, recorded from the upstream executor.
type legacyFile struct {
	Vectors []struct {
		KeyName       string `json:"key_name"`
		PlaintextName string `json:"plaintext_name"`
		Key           string
		Plaintext     string
		Ciphertext    hexBytes `json:"ciphertext_hex"`
		DerivedKey    hexBytes `json:"derived_key_hex"`
	}
	Negative []struct {
		Name       string
		Key        *string
		Ciphertext hexBytes `json:"ciphertext_hex"`
		Upstream   struct{ Outcome string }
	}
	EnvDecoding []struct {
		Value      hexBytes `json:"env_value_bytes_hex"`
		Seen       hexBytes `json:"ikm_bytes_hex_seen_by_upstream"`
		DerivedKey hexBytes `json:"derived_key_hex"`
		Plaintext  string
		Ciphertext hexBytes `json:"ciphertext_hex"`
	} `json:"env_decoding"`
	LossyPlaintexts []struct {
		Name       string
		Key        string
		Raw        hexBytes `json:"raw_plaintext_hex"`
		Ciphertext hexBytes `json:"ciphertext_hex"`
		DecryptsTo hexBytes `json:"decrypts_to_utf8_hex"`
	} `json:"lossy_plaintexts"`
	SwapDemo struct {
		Key        string
		Ciphertext hexBytes `json:"ciphertext_hex"`
		DecryptsTo string   `json:"decrypts_to"`
	} `json:"swap_demo"`
}

func loadLegacy(t testing.TB) *legacyFile {
	t.Helper()
	var f legacyFile
	loadVectors(t, "legacy.json", &f)
	return &f
}

// openedLegacyKey returns the key of value. Under GODEBUG=fips140=only it
// asserts that a value below 112 bits is refused, says so, and returns nil: the
// module refuses it by design, and the vector runs in every other mode.
func openedLegacyKey(t *testing.T, value []byte) *envelope.LegacyKey {
	t.Helper()
	k, err := envelope.NewLegacyKey(value)
	if fips140.Enforced() && len(envelope.DecodeUTF8(value)) < 14 {
		if err == nil {
			t.Error("fips140=only: a value below 14 bytes is accepted")
		}
		t.Log("refused under fips140=only by design: an HKDF key below 14 bytes")
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// derivesTo asserts the derivation of the legacy key of value.
func derivesTo(t *testing.T, value, want []byte) {
	t.Helper()
	key, err := envelope.HKDFSHA256(envelope.DecodeUTF8(value), nil, envelope.LegacyInfo, 32)
	if err != nil || !bytes.Equal(key, want) {
		t.Errorf("derived key is not upstream's (%v)", err)
	}
}

func TestLegacyVectors(t *testing.T) {
	f := loadLegacy(t)
	atLeast(t, len(f.Vectors), 90)
	for _, v := range f.Vectors {
		t.Run(v.KeyName+"/"+v.PlaintextName, func(t *testing.T) {
			k := openedLegacyKey(t, []byte(v.Key))
			if k == nil {
				return
			}
			derivesTo(t, []byte(v.Key), v.DerivedKey)
			got, err := k.Open(nil, v.Ciphertext)
			if err != nil || string(got) != v.Plaintext {
				t.Fatalf("Open: %v; the plaintext is not upstream's", err)
			}
			sealed := k.Seal(nil, []byte(v.Plaintext))
			if len(sealed) != len(v.Ciphertext) {
				t.Errorf("sealed anew: %d bytes, upstream has %d", len(sealed), len(v.Ciphertext))
			}
			if got, err = k.Open(nil, sealed); err != nil || string(got) != v.Plaintext {
				t.Errorf("opening what was sealed anew: %v", err)
			}
		})
	}
}

// TestLegacyNegative asserts that whatever upstream refuses is refused here, and
// so are the cut tags that upstream accepts.
func TestLegacyNegative(t *testing.T) {
	f := loadLegacy(t)
	atLeast(t, len(f.Negative), 27)
	accepted := 0
	for _, v := range f.Negative {
		t.Run(v.Name, func(t *testing.T) {
			if v.Key == nil || *v.Key == "" {
				if _, err := envelope.NewLegacyKey(nil); !errors.Is(err, core.ErrKeyMissing) {
					t.Errorf("NewLegacyKey of no value: %v, want ErrKeyMissing", err)
				}
				return
			}
			if v.Upstream.Outcome == "RETURNED" {
				accepted++
			}
			got, err := openedLegacyKey(t, []byte(*v.Key)).Open(nil, v.Ciphertext)
			if !errors.Is(err, core.ErrInvalidCiphertext) || got != nil {
				t.Errorf("Open = %d bytes, %v; want ErrInvalidCiphertext", len(got), err)
			}
		})
	}
	atLeast(t, accepted, 4) // of the cut tags that upstream returned a plaintext for
}

func TestLegacyEnvDecoding(t *testing.T) {
	f := loadLegacy(t)
	atLeast(t, len(f.EnvDecoding), 17)
	for _, v := range f.EnvDecoding {
		if got := envelope.DecodeUTF8(v.Value); !bytes.Equal(got, v.Seen) {
			t.Errorf("DecodeUTF8(%x) = %x, upstream saw %x", v.Value, got, v.Seen)
			continue
		}
		k := openedLegacyKey(t, v.Value)
		if k == nil {
			continue
		}
		derivesTo(t, v.Value, v.DerivedKey)
		if got, err := k.Open(nil, v.Ciphertext); err != nil || string(got) != v.Plaintext {
			t.Errorf("value %x: Open: %v", v.Value, err)
		}
	}
}

// TestLegacyLossyPlaintexts asserts that the bytes come back as they were sealed,
// and that DecodeUTF8 makes of them what upstream's toString does.
func TestLegacyLossyPlaintexts(t *testing.T) {
	f := loadLegacy(t)
	atLeast(t, len(f.LossyPlaintexts), 11)
	for _, v := range f.LossyPlaintexts {
		got, err := openedLegacyKey(t, []byte(v.Key)).Open(nil, v.Ciphertext)
		if err != nil {
			t.Errorf("%s: Open: %v", v.Name, err)
		}
		if v.Raw != nil && !bytes.Equal(got, v.Raw) {
			t.Errorf("%s: plaintext = %x, want %x", v.Name, got, v.Raw)
		}
		if seen := envelope.DecodeUTF8(got); !bytes.Equal(seen, v.DecryptsTo) {
			t.Errorf("%s: decoded = %x, upstream saw %x", v.Name, seen, v.DecryptsTo)
		}
	}
}

// TestLegacyOpensAnywhere records what legacy cannot do, and why it is left
// behind: the record opens whatever the aad, hence in any row.
func TestLegacyOpensAnywhere(t *testing.T) {
	demo := loadLegacy(t).SwapDemo
	s := envelope.NewSnapshot(nil, nil, legacyKeys(t, demo.Key))
	for _, aad := range [][]byte{nil, []byte("user 1"), []byte("user 2")} {
		got, stale, err := s.Open(nil, demo.Ciphertext, aad)
		if err != nil || string(got) != demo.DecryptsTo || !stale {
			t.Errorf("Open with aad %q: stale %v, %v", aad, stale, err)
		}
	}
}

func TestLegacyKeysTryEach(t *testing.T) {
	keys := legacyKeys(t, "the value of last year", "the value of this year", "yet another one")
	record := keys[1].Seal(nil, []byte("FAKE-token"))
	if got, err := keys.Open([]byte("head "), record); err != nil || string(got) != "head FAKE-token" {
		t.Errorf("Open under the second of three = %q, %v", got, err)
	}
	for name, some := range map[string]envelope.LegacyKeys{"others": {keys[0], keys[2]}, "none": nil} {
		if got, err := some.Open(nil, record); !errors.Is(err, core.ErrInvalidCiphertext) || got != nil {
			t.Errorf("Open under %s = %q, %v; want ErrInvalidCiphertext", name, got, err)
		}
	}
}

// scripted is an AEAD that puts the next of nonces where the cipher's random one
// was.
type scripted struct {
	cipher.AEAD
	nonces []string
}

// Seal seals, and then overwrites the nonce.
func (s *scripted) Seal(dst, nonce, plaintext, aad []byte) []byte {
	out := s.AEAD.Seal(dst, nonce, plaintext, aad)
	copy(out[len(dst):], s.nonces[0])
	s.nonces = s.nonces[1:]
	return out
}

// TestLegacySealAvoidsMagic asserts that nothing that is written as legacy can be
// taken for a record with a header, of this version or a later one.
func TestLegacySealAvoidsMagic(t *testing.T) {
	aead, err := envelope.NewGCM(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{aead, []string{"LKW1 is taken", "LKW2 too, it is", "free nonce, a"}}
	record := envelope.LegacyKeyWith(s).Seal([]byte("head"), []byte("FAKE-token"))
	if !bytes.HasPrefix(record, []byte("headfree nonce, ")) {
		t.Errorf("record starts with %q, want the third nonce drawn", record[4:16])
	}
	if want := 4 + 12 + 16 + len("FAKE-token"); len(record) != want {
		t.Errorf("record of %d bytes, want %d", len(record), want)
	}
}
