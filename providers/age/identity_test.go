package age_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/iotest"

	agelib "filippo.io/age"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/age"
)

const comments = "# created: 2030-01-01T00:00:00Z\n# public key: " + recipient + "\n"

func TestIdentityFiles(t *testing.T) {
	skipUnderFIPS(t)
	second := newX25519(t)
	one := []string{recipient}
	two := []string{recipient, second.Recipient().String()}
	for name, c := range map[string]struct {
		file string
		want []string
	}{
		"as age-keygen writes it": {comments + identity + "\n", one},
		"bare":                    {identity, one},
		"lines of Windows":        {strings.ReplaceAll(comments+identity+"\n", "\n", "\r\n"), one},
		"byte order mark":         {"\xef\xbb\xbf" + comments + identity + "\n", one},
		"spaces":                  {"\n  " + identity + "\t\n\n", one},
		"two":                     {comments + identity + "\n" + second.String() + "\n", two},
		"one twice":               {identity + "\n" + identity + "\n" + second.String(), two},
		"both kinds":              {identity + "\n" + hybrid + "\n", []string{recipient, mustIdentity(t, hybrid).Recipient().String()}},
	} {
		t.Run(name, func(t *testing.T) {
			identities, err := age.ParseIdentities(strings.NewReader(c.file))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, i := range identities {
				got = append(got, i.Recipient().String())
			}
			if strings.Join(got, " ") != strings.Join(c.want, " ") {
				t.Errorf("recipients %q, want %q", got, c.want)
			}
		})
	}
}

func TestIdentityFileRefused(t *testing.T) {
	skipUnderFIPS(t)
	body := identity[len("AGE-SECRET-KEY-"):]
	passphrase, err := agelib.NewScryptRecipient("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	passphrase.SetWorkFactor(1)
	for name, c := range map[string]struct{ file, says string }{
		"empty":                  {"", "no identity"},
		"comments only":          {comments, "no identity"},
		"encrypted":              {string(encrypted(t, []byte(identity), passphrase)), "age -d"},
		"encrypted, armored":     {"-----BEGIN AGE ENCRYPTED FILE-----\nYWdlLWVuY3J5cHRpb24ub3JnL3YxCg==\n-----END AGE ENCRYPTED FILE-----\n", "age -d"},
		"recipient":              {comments + recipient, "line 3: this is a recipient"},
		"SSH key":                {"-----BEGIN OPENSSH PRIVATE KEY-----\n" + body, "another kind"},
		"identity of a plugin":   {"AGE-PLUGIN-YUBIKEY-" + body, "plugin"},
		"UTF-16, little endian":  {"\xff\xfe#\x00", "UTF-16"},
		"UTF-16, big endian":     {"\xfe\xff\x00#", "UTF-16"},
		"checksum":               {identity[:30] + "P" + identity[31:], "mistyped"},
		"cut":                    {identity[:len(identity)-1], "mistyped"},
		"second is cut":          {identity + "\n" + identity[:40], "line 2: the identity is mistyped"},
		"post-quantum, cut":      {hybrid[:len(hybrid)-1], "mistyped"},
		"lower case":             {strings.ToLower(identity), "in capitals"},
		"text behind it":         {identity + " # mine", "mistyped"},
		"recipient behind it":    {identity + "\n" + recipient, "line 2: this is a recipient"},
		"without its head":       {body, "neither"},
		"another type":           {"AGE-SECRET-KEY-XQ-1" + body, "neither"},
		"a value of another key": {"7d0c5e1b9a48f36217ce84d0b5a96f3e", "neither"},
		"large":                  {strings.Repeat("#", 65<<10), "larger"},
	} {
		t.Run(name, func(t *testing.T) {
			identities, err := age.ParseIdentities(strings.NewReader(c.file))
			if err == nil || identities != nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q does not say %q", err, c.says)
			}
			for _, secret := range []string{body, hybrid[len("AGE-SECRET-KEY-"):], "7d0c5e1b9a48f36217ce84d0b5a96f3e"} {
				wantNotRepeated(t, err.Error(), secret)
			}
		})
	}
}

func TestIdentityFileUnreadable(t *testing.T) {
	skipUnderFIPS(t)
	broken := io.MultiReader(strings.NewReader(identity+"\n"), iotest.ErrReader(io.ErrUnexpectedEOF))
	if _, err := age.ParseIdentities(broken); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v", err)
	}
}

// However it is printed, an identity shows its KEK ID and no part of the key.
func TestIdentityIsNotShown(t *testing.T) {
	skipUnderFIPS(t)
	i := mustIdentity(t, identity)
	var out bytes.Buffer
	for _, v := range []any{i, []*age.Identity{i}, map[string]any{"i": i}, struct{ I *age.Identity }{i}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		if err := json.NewEncoder(&out).Encode(v); err != nil {
			t.Fatal(err)
		}
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("identity", "identity", i)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("identity", "identity", i)
	fmt.Fprintf(&out, "%v %+v %#v", i.Provider(), i.Provider(), i.Recipient())
	wantNotRepeated(t, out.String(), identity[len("AGE-SECRET-KEY-"):])
	if direct := fmt.Sprintf("%d %+v", i, i); direct != "age:"+recipient+" age:"+recipient {
		t.Errorf("%q", direct)
	}
	// The scalar itself, as %v, %d and %x would print its first bytes.
	for _, scalar := range []string{"[43 73 200", "2b49c8", "0x2b, 0x49"} {
		if strings.Contains(out.String(), scalar) {
			t.Errorf("the output shows the key as %s…", scalar)
		}
	}
}

// Each of several identities opens its own wraps, and none of the others'.
func TestSeveralIdentities(t *testing.T) {
	skipUnderFIPS(t)
	file := identity + "\n" + newX25519(t).String() + "\n" + hybrid + "\n"
	identities, err := age.ParseIdentities(strings.NewReader(file))
	if err != nil || len(identities) != 3 {
		t.Fatalf("%d identities, %v", len(identities), err)
	}
	aad := core.WrapAAD("store", "1")
	for n, of := range identities {
		w, err := of.Recipient().WrapDataKey(t.Context(), make([]byte, core.DataKeySize), aad)
		if err != nil {
			t.Fatal(err)
		}
		for m, by := range identities {
			_, err := by.Provider().UnwrapDataKey(t.Context(), w, aad)
			if n == m && err != nil || n != m && !errors.Is(err, core.ErrInvalidCiphertext) {
				t.Errorf("identity %d, wrap of %d: %v", m, n, err)
			}
		}
	}
}
