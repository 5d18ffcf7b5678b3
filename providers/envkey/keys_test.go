package envkey_test

import (
	"crypto/fips140"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/envkey"
)

func writeFile(t *testing.T, dir, content string) string {
	t.Helper()
	path := filepath.Join(dir, "key")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func kekID(t *testing.T, value string) core.KEKID {
	t.Helper()
	st, err := mustKeys(t, envkey.Options{Value: []byte(value), AllowWeak: true}).Provider().Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st.KEKID
}

func TestCurrentKeyAccepted(t *testing.T) {
	for _, value := range []string{hexKey, strings.ToUpper(hexKey), hexKey + "00aa", base64, strings.TrimSuffix(base64, "=")} {
		keys := mustKeys(t, envkey.Options{Value: []byte(value), AuthSecret: "something else"})
		if w := keys.Warnings(); len(w) != 0 {
			t.Errorf("warnings %q for a strong key", w)
		}
		if _, err := keys.Provider().Status(t.Context()); err != nil {
			t.Error(err)
		}
		if len(keys.LegacyKeys()) != 1 || keys.LegacyKey() == nil {
			t.Error("the key opens no legacy records")
		}
	}
}

func TestCurrentKeyRefused(t *testing.T) {
	tests := []struct {
		name, value, auth string
		want              []string
	}{
		{"too short", "hunter2-but-longer", "", []string{"openssl rand -hex 32", "lockwood key generate", "PREVIOUS_ENCRYPTION_KEYS", "ALLOW_WEAK_KEY=true"}},
		{"repetitive", strings.Repeat("ab", 32), "", []string{"repetitive", "openssl rand -hex 32"}},
		{"equal to the auth secret", hexKey, hexKey, []string{"FOREST_AUTH_SECRET", "openssl rand -hex 32"}},
		{"equal to the auth secret but for white space", hexKey, hexKey + "\n", []string{"FOREST_AUTH_SECRET"}},
		{"several things at once", "  short enough to fail", "short enough to fail", []string{"white space", "neither", "FOREST_AUTH_SECRET"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := envkey.New(envkey.Options{Value: []byte(tt.value), AuthSecret: core.Secret(tt.auth)})
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range append(tt.want, envkey.Variable) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error does not name %q:\n%v", want, err)
				}
			}
			if strings.Contains(err.Error(), strings.TrimSpace(tt.value)) {
				t.Error("the error repeats the value")
			}
			keys := mustKeys(t, envkey.Options{Value: []byte(tt.value), AuthSecret: core.Secret(tt.auth), AllowWeak: true})
			if len(keys.Warnings()) == 0 {
				t.Error("allowed without a warning")
			}
			for _, w := range keys.Warnings() {
				if strings.Contains(w, strings.TrimSpace(tt.value)) || !strings.Contains(w, "ALLOW_WEAK_KEY") {
					t.Errorf("warning repeats the value, or does not say why it is allowed: %s", w)
				}
			}
		})
	}
}

// Each form of white space is reported with both KEK IDs, and never cut.
func TestSurroundingWhiteSpace(t *testing.T) {
	for _, value := range []string{hexKey + "\n", hexKey + "\r\n", " " + hexKey, hexKey + "\t", "\u00a0" + hexKey, "\ufeff" + hexKey} {
		t.Run(fmt.Sprintf("%q", strings.ReplaceAll(value, hexKey, "…")), func(t *testing.T) {
			exact, trimmed := kekID(t, value), kekID(t, hexKey)
			if exact == trimmed {
				t.Fatal("the white space was cut")
			}
			_, err := envkey.New(envkey.Options{Value: []byte(value)})
			warnings := mustKeys(t, envkey.Options{Value: []byte(value), AllowWeak: true}).Warnings()
			previous := mustKeys(t, envkey.Options{Previous: []core.SecretBytes{[]byte(value)}})
			if err == nil || len(warnings) != 1 || len(previous.Warnings()) != 1 {
				t.Fatalf("error %v, %d and %d warnings", err, len(warnings), len(previous.Warnings()))
			}
			for _, text := range []string{err.Error(), warnings[0], previous.Warnings()[0]} {
				if !strings.Contains(text, string(exact)) || !strings.Contains(text, string(trimmed)) {
					t.Errorf("does not name both KEK IDs: %s", text)
				}
				if strings.Contains(text, hexKey) {
					t.Error("shows the value")
				}
			}
			if st, err := previous.Previous()[0].Status(t.Context()); err != nil || st.KEKID != exact {
				t.Errorf("previous key is %s, %v; want %s", st.KEKID, err, exact)
			}
		})
	}
}

func TestNothingButWhiteSpace(t *testing.T) {
	blank := strings.Repeat(" ", 20)
	_, err := envkey.New(envkey.Options{Value: []byte(blank)})
	if err == nil || !strings.Contains(err.Error(), string(kekID(t, blank))) || !strings.Contains(err.Error(), "nothing but white space") {
		t.Errorf("error %v", err)
	}
}

func TestNotUTF8Refused(t *testing.T) {
	value := append([]byte("a long enough value with a byte "), 0xff)
	for _, allow := range []bool{false, true} {
		keys, err := envkey.New(envkey.Options{Value: value, AllowWeak: allow})
		if err == nil || !strings.Contains(err.Error(), "UTF-8") || !strings.Contains(err.Error(), envkey.PreviousVariable) {
			t.Errorf("allowing weak keys %t: error %v", allow, err)
		}
		if _, err := keys.Provider().Status(t.Context()); !errors.Is(err, core.ErrKeyMissing) {
			t.Errorf("a refused key is in use: %v", err)
		}
	}
}

func TestNoKeyConfigured(t *testing.T) {
	keys := mustKeys(t, envkey.Options{})
	p := keys.Provider()
	_, wrapErr := p.WrapDataKey(t.Context(), make([]byte, 32), nil)
	_, generateErr := p.GenerateDataKey(t.Context(), nil)
	_, unwrapErr := p.UnwrapDataKey(t.Context(), core.WrappedKey{}, nil)
	_, statusErr := p.Status(t.Context())
	for _, err := range []error{wrapErr, generateErr, unwrapErr, statusErr} {
		if !errors.Is(err, core.ErrKeyMissing) {
			t.Errorf("%v, want ErrKeyMissing", err)
		}
	}
	if len(keys.LegacyKeys()) != 0 || keys.LegacyKey() != nil || len(keys.Previous()) != 0 || len(keys.Warnings()) != 0 {
		t.Error("something is there without a key")
	}
}

func TestPreviousKeys(t *testing.T) {
	values := []core.SecretBytes{[]byte("fourteen bytes"), nil, []byte("not UTF-8, but legacy \xff"), []byte(otherKey)}
	keys := mustKeys(t, envkey.Options{Previous: values})
	if n := len(keys.Previous()); n != 2 {
		t.Errorf("%d previous KEKs, want 2", n)
	}
	if n := len(keys.LegacyKeys()); n != 3 {
		t.Errorf("%d legacy keys, want 3", n)
	}
	if keys.LegacyKey() != nil {
		t.Error("a previous key would write legacy records")
	}
	if _, err := keys.Provider().Status(t.Context()); !errors.Is(err, core.ErrKeyMissing) {
		t.Errorf("the current key: %v, want ErrKeyMissing", err)
	}
	all := mustKeys(t, envkey.Options{Value: []byte(hexKey), Previous: values}).LegacyKeys()
	current := mustKeys(t, envkey.Options{Value: []byte(hexKey)}).LegacyKey()
	if _, err := all[0].Open(nil, current.Seal(nil, []byte("x"))); err != nil || len(all) != 4 {
		t.Errorf("%d keys, the current one not first: %v", len(all), err)
	}
}

// A previous key that holds more than a key is taken as it stands, and told with what
// is likely meant.
func TestPreviousKeysThatHoldMore(t *testing.T) {
	for value, meant := range map[string][]string{
		`"` + hexKey + `"`:                         {hexKey},
		"'" + base64 + "'":                         {base64},
		`"a longer passphrase"`:                    {"a longer passphrase"},
		"[" + hexKey + "]":                         {hexKey},
		`["` + hexKey + `"`:                        {hexKey},
		hexKey + ";" + otherKey:                    {hexKey, otherKey},
		hexKey + " " + base64:                      {hexKey, base64},
		hexKey + "%":                               {hexKey},
		base64 + "%":                               {base64},
		envkey.Variable + "=" + hexKey:             {hexKey},
		"export " + envkey.Variable + "=" + base64: {base64},
		envkey.Variable + ": " + hexKey + "\r":     {hexKey},
		hexKey + " # the old one":                  {hexKey},
		hexKey + "\xff":                            {hexKey},
		hexKey + "\n":                              {hexKey},
	} {
		keys := mustKeys(t, envkey.Options{Previous: []core.SecretBytes{[]byte(value)}})
		w := strings.Join(keys.Warnings(), "\n")
		if strings.Count(w, envkey.PreviousVariable+": key 1") != 1 || strings.Contains(w, hexKey) {
			t.Errorf("%q: %q", value, w)
		}
		if utf8.ValidString(value) {
			meant = append(meant, value) // as it stands
		}
		for _, k := range meant {
			if id := kekID(t, k); !strings.Contains(w, string(id)) {
				t.Errorf("%q: %q does not name %s", value, w, id)
			}
		}
		if len(keys.LegacyKeys()) != 1 {
			t.Errorf("%q opens nothing", value)
		}
	}
	for _, value := range []string{hexKey, base64, "a longer passphrase", "a=b;c and d and e", "[x and y and z]", strings.Repeat("x", 64)} {
		if w := mustKeys(t, envkey.Options{Previous: []core.SecretBytes{[]byte(value)}}).Warnings(); len(w) != 0 {
			t.Errorf("%q: %q", value, w)
		}
	}
}

// As the current key such a value is refused, with the same hint.
func TestACurrentKeyThatHoldsMore(t *testing.T) {
	_, err := envkey.New(envkey.Options{Value: []byte(hexKey + ";" + otherKey)})
	for _, want := range []string{envkey.Variable, string(kekID(t, hexKey)), string(kekID(t, otherKey))} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
}

func TestPreviousFile(t *testing.T) {
	path := writeFile(t, t.TempDir(), "first, with a comma\n\n"+otherKey+"\r\n"+otherKey+"\n\n")
	keys := mustKeys(t, envkey.Options{PreviousFile: path})
	if n := len(keys.Previous()); n != 3 {
		t.Fatalf("%d previous KEKs, want one a line", n)
	}
	for i, want := range []string{"first, with a comma", otherKey + "\r", otherKey} {
		if st, err := keys.Previous()[i].Status(t.Context()); err != nil || st.KEKID != kekID(t, want) {
			t.Errorf("line %d: KEK %s, %v; want %s", i, st.KEKID, err, kekID(t, want))
		}
	}
	if w := keys.Warnings(); len(w) != 1 || !strings.Contains(w[0], "key 3") {
		t.Errorf("warnings %q, want one about the carriage return of line 3", w)
	}
	_, err := envkey.New(envkey.Options{PreviousFile: path + ".none"})
	if err == nil || !strings.Contains(err.Error(), envkey.PreviousFileVariable) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// Everything wrong is said at once.
func TestErrorsAreJoined(t *testing.T) {
	_, err := envkey.New(envkey.Options{
		Value: []byte(hexKey), File: "some/path",
		Previous: []core.SecretBytes{[]byte(otherKey)}, PreviousFile: "other/path",
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, name := range []string{envkey.Variable + " and", envkey.FileVariable, envkey.PreviousVariable + " and", envkey.PreviousFileVariable} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("error does not name %s:\n%v", name, err)
		}
	}
}

func TestClosingOneHandle(t *testing.T) {
	keys := mustKeys(t, envkey.Options{Value: []byte(hexKey)})
	a, b := keys.Provider(), keys.Provider()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Status(t.Context()); !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("the closed handle: %v", err)
	}
	if _, err := b.Status(t.Context()); err != nil {
		t.Errorf("the other handle: %v", err)
	}
}

func TestFactory(t *testing.T) {
	var r core.Registry
	r.Register(envkey.Scheme, mustKeys(t, envkey.Options{Value: []byte(hexKey)}).Factory())
	p, err := r.Open(t.Context(), envkey.URI)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := p.Status(t.Context()); err != nil || st.KEKID != kekID(t, hexKey) {
		t.Errorf("status %v, %v", st, err)
	}
	for _, uri := range []string{
		"envkey://", "envkey:///" + envkey.Variable, "envkey://" + hexKey, "envkey://" + envkey.Variable + "/" + hexKey,
		envkey.URI + "?version=1", "envkey://forest_executor_encryption_key",
	} {
		_, err := r.Open(t.Context(), uri)
		if err == nil {
			t.Errorf("%s: accepted", uri)
		} else if strings.Contains(err.Error(), hexKey) {
			t.Errorf("the error repeats what may be a key")
		}
	}
}

// Under GODEBUG=fips140=only a short key is a configuration error, not a panic.
func TestShortKeyUnderFIPS(t *testing.T) {
	for name, o := range map[string]envkey.Options{
		"current":                {Value: []byte("thirteen byte"), AllowWeak: true},
		"current in white space": {Value: []byte("  thirteen byte"), AllowWeak: true},
		"previous":               {Previous: []core.SecretBytes{[]byte("x")}},
		"previous, not UTF-8":    {Previous: []core.SecretBytes{[]byte("\xff\xff")}},
	} {
		t.Run(name, func(t *testing.T) {
			keys, err := envkey.New(o)
			if !fips140.Enforced() {
				if err != nil {
					t.Errorf("refused without GODEBUG=fips140=only: %v", err)
				}
				return
			}
			if name == "current in white space" { // 15 bytes with it, 13 without
				if err != nil || !strings.Contains(keys.Warnings()[0], "none") {
					t.Errorf("error %v, warnings %q", err, keys.Warnings())
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), "14 bytes") {
				t.Errorf("error %v, want one that says 14 bytes", err)
			}
		})
	}
}
