package age_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	agelib "filippo.io/age"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/age"
)

// FuzzUnwrap: bytes that are not a wrap never unwrap, and never panic. They are tried
// as they are, and as what an age file to the identity holds, since anyone can make
// one.
func FuzzUnwrap(f *testing.F) {
	if len(readRecorded(f)) == 0 {
		f.Fatal("no seed corpus")
	}
	skipUnderFIPS(f)
	for _, r := range readRecorded(f) {
		f.Add(r.wrap(f).Wrapped)
		f.Add(plaintextOf("lockwood/1 age", r.aad(), unhex(f, r.DataKey)))
	}
	f.Add([]byte("age-encryption.org/v1\n-> X25519 \n\n--- \n"))
	x, h := mustIdentity(f, identity), mustIdentity(f, hybrid)
	to, err := agelib.ParseX25519Recipient(recipient)
	if err != nil {
		f.Fatal(err)
	}
	aad := core.WrapAAD("of nobody", "1")
	form := plaintextOf("lockwood/1 age", aad, nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, i := range []*age.Identity{x, h} {
			if _, err := i.Provider().UnwrapDataKey(t.Context(), core.WrappedKey{KEKID: i.KEKID(), Wrapped: b}, aad); !errors.Is(err, core.ErrInvalidCiphertext) {
				t.Errorf("as a wrap: %v", err)
			}
		}
		got, err := x.Provider().UnwrapDataKey(t.Context(), core.WrappedKey{KEKID: x.KEKID(), Wrapped: encrypted(t, b, to)}, aad)
		if bytes.HasPrefix(b, form) && len(b) == len(form)+core.DataKeySize {
			if err != nil || !bytes.Equal(got, b[len(form):]) {
				t.Errorf("the form of a wrap: %v", err)
			}
		} else if !errors.Is(err, core.ErrInvalidCiphertext) {
			t.Errorf("as a plaintext: %v", err)
		}
	})
}

// FuzzIdentities: no file makes the parser panic, and no error repeats a line of it.
func FuzzIdentities(f *testing.F) {
	skipUnderFIPS(f)
	for _, s := range []string{comments + identity, identity + "\r\n" + hybrid, "\xff\xfeA", "age-encryption.org/v1\n", identity[:60], "AGE-SECRET-KEY-PQ-1"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		identities, err := age.ParseIdentities(bytes.NewReader(file))
		if (err == nil) != (len(identities) > 0) {
			t.Errorf("%d identities, %v", len(identities), err)
		}
		for word := range bytes.FieldsSeq(file) {
			// No word of the messages is as long.
			if err != nil && len(word) > 20 && strings.Contains(err.Error(), string(word)) {
				t.Errorf("%q repeats part of the file", err)
			}
		}
	})
}
