package envkey

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
)

// Nothing that a key generator prints is refused. With 100,000 keys of each form, a
// false refusal of one key in 30,000 would show with a probability of 96 %; the
// bounds that stand beside the thresholds are far lower.
func TestRandomKeysPass(t *testing.T) {
	forms := map[string]func([]byte) string{
		"hex":             hex.EncodeToString,
		"capital hex":     func(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) },
		"base64":          base64.StdEncoding.EncodeToString,
		"unpadded base64": base64.RawStdEncoding.EncodeToString,
		"base64url":       base64.RawURLEncoding.EncodeToString,
		"padded URL":      base64.URLEncoding.EncodeToString,
		"base64 of hex":   func(b []byte) string { return base64.StdEncoding.EncodeToString([]byte(hex.EncodeToString(b) + "\n")) },
	}
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i := range 100_000 {
				key := make([]byte, 32+16*(i%10/8)+i%10/9) // mostly 32 bytes, the shortest; also 48 and 49
				rand.Read(key)
				if w := weakness(form(key)); w != "" {
					t.Fatalf("%d random bytes: the value %s", len(key), w)
				}
			}
		})
	}
	if w := weakness(Generate()); w != "" {
		t.Errorf("what Generate prints %s", w)
	}
}

func TestWeakKeysAreNamed(t *testing.T) {
	b64 := base64.StdEncoding.EncodeToString
	sequence := make([]byte, 32)
	for i := range sequence {
		sequence[i] = byte(100 + 3*i)
	}
	random := make([]byte, 64)
	rand.Read(random)
	tests := []struct{ name, value, want string }{
		{"one letter", "x", "neither"},
		{"a word", "hunter2", "too short"},
		{"a passphrase", "correct horse battery staple, twice over, and then some", "neither"},
		{"31 bytes in hex", hex.EncodeToString(random[:31]), "fewer than 64"},
		{"a hex digit lost", hex.EncodeToString(random[:33])[1:], "odd number"},
		{"31 bytes in base64", b64(random[:31]), "too short"},
		{"16 bytes in base64", b64(random[:16]), "too short"},
		{"both alphabets", "+-" + b64(random[:48]), "neither"},
		{"wrong padding", strings.TrimRight(b64(random[:32]), "=") + "==", "neither"},
		{"a line break inside", b64(random[:32])[:20] + "\n" + b64(random[:32])[20:], "neither"},
		{"white space inside", hex.EncodeToString(random[:16]) + " " + hex.EncodeToString(random[16:32]), "neither"},
		{"quoted", `"` + hex.EncodeToString(random[:32]) + `"`, "quotation marks"},
		{"zeros", strings.Repeat("0", 64), "repetitive"},
		{"letter a", strings.Repeat("a", 64), "repetitive"},
		{"eight digits again and again", strings.Repeat("deadbeef", 8), "repetitive"},
		{"half and half", strings.Repeat(hex.EncodeToString(random[:16]), 2), "repetitive"},
		{"repeated with a cut", strings.Repeat(hex.EncodeToString(random[:9]), 4)[:64], "repetitive"},
		{"two byte values", strings.Repeat("00ff00ff00000fff", 3) + "f00f0f0f00ff0f00", "repetitive"},
		{"base64 of zeros", b64(make([]byte, 32)), "words"},
		{"base64 of a block", b64(bytes.Repeat(random[:8], 5)), "repetitive"},
		{"counting bytes", hex.EncodeToString(sequence), "sequence"},
		{"counting bytes in base64", b64(sequence), "sequence"},
		{"the base64 alphabet", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", "sequence"},
		{"words run together", "ThisIsTheSecretKeyOfOurForestExecutorInProductionNow", "words"},
		{"short words", "MyVeryLongSecretKeyForTheForestExecutorServer1", "words"},
		{"words and a year", "Correct-Horse-Battery-Staple-Forest-Admin-2024", "words"},
		{"small letters and digits", "thisisnotakey0123butaverylongpassword4567890", "words"},
		{"a text in base64", b64([]byte("my very secret passphrase that is long enough")), "encoded text"},
		{"a text in hex", hex.EncodeToString([]byte("my very secret passphrase that is long enough")), "encoded text"},
		{"a text in base64 in base64", b64([]byte(b64([]byte("my very secret passphrase that is long enough")))), "encoded text"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := weakness(tt.value); !strings.Contains(got, tt.want) {
				t.Errorf("the value %q, want %q", got, tt.want)
			}
		})
	}
}

// The rows of the model are distributions; the bound on false refusals rests on it.
func TestWordModelIsADistribution(t *testing.T) {
	for kind, row := range nextKind {
		sum := 0.0
		for _, p := range row {
			sum += p
		}
		if sum < 0.999999 || sum > 1.000001 {
			t.Errorf("row %d sums to %v", kind, sum)
		}
	}
}

// No value makes the judgement panic or take long.
func FuzzWeakness(f *testing.F) {
	seeds := []string{"", "x", "=", "====", "\"", strings.Repeat("a", 1000), "kZ3vQm8sT1xWb6Ya0RfEo9LhUj4DnCp7GiVtXw2HqMs=", "\xff\xfe", "QUFB"}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		w := weakness(s)
		if len(s) < 43 && w == "" {
			t.Errorf("a value of %d bytes passes", len(s))
		}
		if len(s) > 8 && strings.Contains(w, s) {
			t.Error("the judgement repeats the value")
		}
	})
}
