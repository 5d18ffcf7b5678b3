package age_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"testing"

	agelib "filippo.io/age"
	"filippo.io/age/armor"

	"github.com/lockwood-kms/lockwood/core"
)

// plaintextOf is the plaintext of a wrap as docs/format.md, section 9.4, has it.
func plaintextOf(label string, aad core.AAD, dataKey []byte) []byte {
	sum := sha256.Sum256(aad.Bytes())
	return slices.Concat([]byte(label), sum[:], dataKey)
}

// What anyone can make who has the recipient: of age files, only those that have the
// form of a wrap unwrap, and only under their own aad.
func TestForgedFiles(t *testing.T) {
	skipUnderFIPS(t)
	own, foreign := newX25519(t), newX25519(t)
	i := mustIdentity(t, own.String())
	aad, dataKey := core.WrapAAD("store", "1"), bytes.Repeat([]byte{7}, core.DataKeySize)
	right := plaintextOf("lockwood/1 age", aad, dataKey)
	file := func(plaintext []byte, to ...agelib.Recipient) []byte { return encrypted(t, plaintext, to...) }
	for name, c := range map[string]struct {
		file []byte
		ok   bool
	}{
		// That this opens is why nothing that an identity unwraps may seal.
		"the form of a wrap":         {file(right, own.Recipient()), true},
		"another label":              {file(plaintextOf("lockwood/2 age", aad, dataKey), own.Recipient()), false},
		"another store":              {file(plaintextOf("lockwood/1 age", core.WrapAAD("other", "1"), dataKey), own.Recipient()), false},
		"another version":            {file(plaintextOf("lockwood/1 age", core.WrapAAD("store", "2"), dataKey), own.Recipient()), false},
		"a data key alone":           {file(dataKey, own.Recipient()), false},
		"nothing":                    {file(nil, own.Recipient()), false},
		"a byte fewer":               {file(right[:len(right)-1], own.Recipient()), false},
		"a byte more":                {file(append(bytes.Clone(right), 0), own.Recipient()), false},
		"two data keys":              {file(append(bytes.Clone(right), dataKey...), own.Recipient()), false},
		"a second recipient":         {file(right, own.Recipient(), foreign.Recipient()), false},
		"a stanza for six bytes":     {file(right[:len(right)-6], own.Recipient(), sixBytes{}), false},
		"itself twice":               {file(right, own.Recipient(), own.Recipient()), false},
		"a foreign recipient":        {file(right, foreign.Recipient()), false},
		"a post-quantum recipient":   {file(right, newHybrid(t).Recipient()), false},
		"a byte behind it":           {append(file(right, own.Recipient()), 0), false},
		"a file behind it":           {append(file(right, own.Recipient()), file(right, own.Recipient())...), false},
		"armored":                    {armored(t, file(right, own.Recipient())), false},
		"as large as can be stored":  {file(make([]byte, core.MaxWrappedSize-300), own.Recipient()), false},
		"larger than can be stored":  {file(make([]byte, 4*core.MaxWrappedSize), own.Recipient()), false},
		"no age file":                {bytes.Repeat([]byte("x"), len(file(right, own.Recipient()))), false},
		"many stanzas":               {[]byte("age-encryption.org/v1\n" + strings.Repeat("-> x\n\n", 43)), false}, // 280 bytes
		"many stanzas, right length": {[]byte("age-encryption.org/v1\n" + strings.Repeat("-> x\n\n", 42) + "--- "), false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := i.Provider().UnwrapDataKey(t.Context(), core.WrappedKey{KEKID: i.KEKID(), Wrapped: c.file}, aad)
			switch {
			case c.ok && (err != nil || !bytes.Equal(got, dataKey)):
				t.Errorf("it did not unwrap to its data key: %v", err)
			case !c.ok && (!errors.Is(err, core.ErrInvalidCiphertext) || got != nil):
				t.Errorf("%d bytes, %v", len(got), err)
			case !c.ok && err.Error() != "unwrapping data key: "+core.ErrInvalidCiphertext.Error():
				t.Errorf("the error tells more than that it failed: %q", err)
			}
		})
	}
}

// sixBytes is a recipient whose stanza takes as few bytes as one can.
type sixBytes struct{}

func (sixBytes) Wrap([]byte) ([]*agelib.Stanza, error) {
	return []*agelib.Stanza{{Type: "x"}}, nil
}

func armored(t *testing.T, file []byte) []byte {
	t.Helper()
	var text bytes.Buffer
	w := armor.NewWriter(&text)
	if _, err := w.Write(file); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return text.Bytes()
}

// Every byte of a recorded wrap counts, and so does its end.
func TestRecordedWrapsAltered(t *testing.T) {
	skipUnderFIPS(t)
	for _, r := range readRecorded(t)[:1] {
		p, aad := mustIdentity(t, r.Identity).Provider(), r.aad()
		file := r.wrap(t).Wrapped
		refuse := func(what string, n int, wrapped []byte) {
			t.Helper()
			if _, err := p.UnwrapDataKey(t.Context(), core.WrappedKey{KEKID: r.KEKID, Wrapped: wrapped}, aad); !errors.Is(err, core.ErrInvalidCiphertext) {
				t.Errorf("%s %d: %v", what, n, err)
			}
		}
		for n := range file {
			for _, bit := range []byte{1, 0x20, 0x80} {
				altered := bytes.Clone(file)
				altered[n] ^= bit
				refuse("altered byte", n, altered)
			}
			refuse("cut to", n, file[:n])
		}
	}
}
