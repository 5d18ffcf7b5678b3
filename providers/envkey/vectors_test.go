package envkey_test

import (
	"bytes"
	"crypto/fips140"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/envkey"
)

type vectorFile struct {
	Vectors []struct {
		Name  string `json:"name"`
		Value string `json:"value_hex"`
		KEK   string `json:"kek_hex"`
		ID    string `json:"kek_id"`
		Wraps []struct {
			Store   string `json:"store"`
			Version string `json:"version"`
			DataKey string `json:"data_key_hex"`
			Wrapped string `json:"wrapped_hex"`
		} `json:"wraps"`
	} `json:"vectors"`
}

func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// skipShortUnderFIPS names what GODEBUG=fips140=only refuses by design and is
// therefore tested without it: HKDF keys below 112 bits.
func skipShortUnderFIPS(t *testing.T, value []byte) {
	t.Helper()
	if fips140.Enforced() && len(value) < 14 {
		t.Skip("GODEBUG=fips140=only refuses HKDF keys below 14 bytes by design; this case runs under fips140=on")
	}
}

// What was wrapped by an earlier version unwraps, as its recorded KEK ID, by the
// current key and by a previous one.
func TestRecordedWrapsUnwrap(t *testing.T) {
	var file vectorFile
	readJSON(t, "testdata/vectors.json", &file)
	if len(file.Vectors) < 6 {
		t.Fatalf("%d vectors", len(file.Vectors))
	}
	for _, v := range file.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			value := unhex(t, v.Value)
			skipShortUnderFIPS(t, value)
			current := mustKeys(t, envkey.Options{Value: value, AllowWeak: true}).Provider()
			previous := mustKeys(t, envkey.Options{Previous: []core.SecretBytes{value}}).Previous()[0]
			for _, w := range v.Wraps {
				for _, p := range []core.KeyProvider{current, previous} {
					wrapped := core.WrappedKey{KEKID: core.KEKID(v.ID), Wrapped: unhex(t, w.Wrapped)}
					got, err := p.UnwrapDataKey(t.Context(), wrapped, core.WrapAAD(w.Store, w.Version))
					if err != nil || !bytes.Equal(got, unhex(t, w.DataKey)) {
						t.Errorf("store %s, version %s: got another data key, or error %v", w.Store, w.Version, err)
					}
				}
			}
		})
	}
}

// The recorded KEKs and IDs are those of RFC 5869, computed here from HMAC alone.
func TestRecordedKEKsAreHKDF(t *testing.T) {
	var file vectorFile
	readJSON(t, "testdata/vectors.json", &file)
	hkdf := func(value []byte, info string, size int) []byte {
		mac := func(key, data []byte) []byte {
			h := hmac.New(sha256.New, key)
			h.Write(data)
			return h.Sum(nil)
		}
		// Without a salt, section 2.2 takes a hash's length of zeros. One block is
		// enough here, section 2.3 with N = 1.
		return mac(mac(make([]byte, sha256.Size), value), append([]byte(info), 1))[:size]
	}
	for _, v := range file.Vectors {
		value := unhex(t, v.Value)
		if got := hex.EncodeToString(hkdf(value, "lockwood/1 envkey kek", 32)); got != v.KEK {
			t.Errorf("%s: the recorded KEK is not HKDF's", v.Name)
		}
		if got := "envkey:" + hex.EncodeToString(hkdf(value, "lockwood/1 envkey id", 8)); got != v.ID {
			t.Errorf("%s: the recorded ID %s is not HKDF's %s", v.Name, v.ID, got)
		}
	}
}

type legacyFile struct {
	Vectors []struct {
		KeyName    string `json:"key_name"`
		Key        string `json:"key_utf8_hex"`
		Plaintext  string `json:"plaintext"`
		Ciphertext string `json:"ciphertext_hex"`
	} `json:"vectors"`
	Negative []struct {
		Name       string  `json:"name"`
		Key        *string `json:"key"`
		Ciphertext string  `json:"ciphertext_hex"`
	} `json:"negative"`
	EnvDecoding []struct {
		Value      string `json:"env_value_bytes_hex"`
		Same       bool   `json:"same"`
		Plaintext  string `json:"plaintext"`
		Ciphertext string `json:"ciphertext_hex"`
	} `json:"env_decoding"`
}

func readLegacy(t *testing.T) *legacyFile {
	t.Helper()
	var file legacyFile
	readJSON(t, "../../core/envelope/testdata/legacy.json", &file)
	if len(file.Vectors) == 0 || len(file.Negative) == 0 || len(file.EnvDecoding) == 0 {
		t.Fatal("the legacy vectors are empty")
	}
	return &file
}

// Every record that upstream wrote opens with the variable as upstream had it: as
// the current key, and as a previous one behind another current key.
func TestUpstreamRecordsOpen(t *testing.T) {
	for _, v := range readLegacy(t).Vectors {
		t.Run(v.KeyName, func(t *testing.T) {
			value := unhex(t, v.Key)
			skipShortUnderFIPS(t, value)
			for where, o := range map[string]envkey.Options{
				"current":  {Value: value, AllowWeak: true},
				"previous": {Value: []byte(otherKey), Previous: []core.SecretBytes{value}},
			} {
				got, err := mustKeys(t, o).LegacyKeys().Open(nil, unhex(t, v.Ciphertext))
				if err != nil || string(got) != v.Plaintext {
					t.Errorf("as %s key: got another plaintext, or error %v", where, err)
				}
			}
		})
	}
}

// A value that is not UTF-8 is refused as a KEK and still opens what upstream wrote
// under it.
func TestUpstreamRecordsUnderInvalidUTF8Open(t *testing.T) {
	for _, v := range readLegacy(t).EnvDecoding {
		t.Run(v.Value, func(t *testing.T) {
			value := unhex(t, v.Value)
			skipShortUnderFIPS(t, value)
			keys := mustKeys(t, envkey.Options{Value: []byte(otherKey), Previous: []core.SecretBytes{value}})
			got, err := keys.LegacyKeys().Open(nil, unhex(t, v.Ciphertext))
			if err != nil || string(got) != v.Plaintext {
				t.Errorf("got another plaintext, or error %v", err)
			}
			if n := len(keys.Previous()); (n == 1) != v.Same {
				t.Errorf("%d previous KEKs, for a value that upstream saw unchanged: %t", n, v.Same)
			}
			_, err = envkey.New(envkey.Options{Value: value, AllowWeak: true})
			if (err == nil) != v.Same {
				t.Errorf("as current key: %v, for a value that upstream saw unchanged: %t", err, v.Same)
			}
		})
	}
}

// What upstream refuses is refused, and so are the truncated tags that it accepts.
func TestUpstreamNegativesRefused(t *testing.T) {
	for _, v := range readLegacy(t).Negative {
		if v.Key == nil || *v.Key == "" {
			keys := mustKeys(t, envkey.Options{Value: []byte{}})
			if _, err := keys.Provider().Status(t.Context()); !errors.Is(err, core.ErrKeyMissing) || keys.LegacyKey() != nil {
				t.Errorf("%s: %v, want the key to be missing", v.Name, err)
			}
			continue
		}
		keys := mustKeys(t, envkey.Options{Value: []byte(*v.Key), AllowWeak: true})
		if _, err := keys.LegacyKeys().Open(nil, unhex(t, v.Ciphertext)); !errors.Is(err, core.ErrInvalidCiphertext) {
			t.Errorf("%s: %v, want an invalid ciphertext", v.Name, err)
		}
	}
}
