package vault

import (
	"encoding/base64"
	"strconv"
	"strings"
	"testing"
)

// Whatever stands in the database: a wrap that is taken has one form, so that no
// other text stands for the same bytes.
func FuzzVersionOf(f *testing.F) {
	seeds := []string{
		"vault:v1:AAAA", "vault:v12:QUJD+/==", "vault:v0:AAAA", "vault:v01:AAAA", "vault:v-1:AAAA", "vault:v1:AA\nAA", "vault:v1:AAB=", "vault:v1:",
		"bao:v3:AAAAAAAA", "vault:1:AAAA", ":v1:AAAA", "", "vault:v999999999:AAAA", "vault:v9999999999:AAAA",
	}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		version, ok := versionOf(text)
		if !ok {
			return
		}
		parts := strings.SplitN(string(text), ":", 3)
		raw, err := base64.StdEncoding.Strict().DecodeString(parts[2])
		if err != nil {
			t.Fatalf("%q was taken", text)
		}
		n, err := strconv.Atoi(version)
		if err != nil || n < 1 || parts[0]+":v"+strconv.Itoa(n)+":"+base64.StdEncoding.EncodeToString(raw) != string(text) {
			t.Errorf("%q is not the one form of version %q", text, version)
		}
	})
}
