package age_test

import (
	"bytes"
	"crypto/fips140"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	agelib "filippo.io/age"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/age"
)

// skipUnderFIPS names what GODEBUG=fips140=only refuses by design.
func skipUnderFIPS(t testing.TB) {
	t.Helper()
	if fips140.Enforced() {
		t.Skip("GODEBUG=fips140=only refuses X25519 and ChaCha20-Poly1305 by design, of which age consists; this runs under fips140=on")
	}
}

// recorded is a wrap that an earlier version made under a made-up identity.
type recorded struct {
	Name      string     `json:"name"`
	Identity  string     `json:"identity"`
	Recipient string     `json:"recipient"`
	KEKID     core.KEKID `json:"kek_id"`
	Store     string     `json:"store"`
	Version   string     `json:"version"`
	DataKey   string     `json:"data_key"`
	Wrapped   string     `json:"wrapped"`
}

func (r *recorded) wrap(t testing.TB) core.WrappedKey {
	return core.WrappedKey{KEKID: r.KEKID, Wrapped: unhex(t, r.Wrapped)}
}

func (r *recorded) aad() core.AAD { return core.WrapAAD(r.Store, r.Version) }

func readRecorded(t testing.TB) []recorded {
	t.Helper()
	text, err := os.ReadFile("testdata/wraps.json")
	if err != nil {
		t.Fatal(err)
	}
	var wraps []recorded
	if err := json.Unmarshal(text, &wraps); err != nil {
		t.Fatal(err)
	}
	if len(wraps) < 5 {
		t.Fatalf("%d recorded wraps", len(wraps))
	}
	return wraps
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustIdentity(t testing.TB, text string) *age.Identity {
	t.Helper()
	identities, err := age.ParseIdentities(strings.NewReader(text))
	if err != nil || len(identities) != 1 {
		t.Fatalf("%d identities, %v", len(identities), err)
	}
	return identities[0]
}

func newX25519(t testing.TB) *agelib.X25519Identity {
	t.Helper()
	i, err := agelib.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func newHybrid(t testing.TB) *agelib.HybridIdentity {
	t.Helper()
	i, err := agelib.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func mustURI(t testing.TB, text string) core.KeyURI {
	t.Helper()
	uri, err := core.ParseKeyURI(text)
	if err != nil {
		t.Fatal(err)
	}
	return uri
}

func mustRecipient(t testing.TB, text string) *age.Recipient {
	t.Helper()
	r, err := age.NewRecipient(mustURI(t, "age://"+text))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// encrypted is an age file as anyone can make it.
func encrypted(t testing.TB, plaintext []byte, to ...agelib.Recipient) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := agelib.Encrypt(&file, to...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plaintext); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// wantNotRepeated fails if text shows eight characters in a row of secret.
func wantNotRepeated(t testing.TB, text, secret string) {
	t.Helper()
	text, secret = strings.ToLower(text), strings.ToLower(secret)
	for i := 0; i+8 <= len(secret); i++ {
		if strings.Contains(text, secret[i:i+8]) {
			t.Fatalf("%q repeats part of the secret", text)
		}
	}
}
