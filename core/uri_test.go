package core_test

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
)

func TestParseKeyURI(t *testing.T) {
	for _, c := range []struct {
		in, scheme, host, path string
		options                map[string]string
	}{
		{"envkey://FOREST_EXECUTOR_ENCRYPTION_KEY", "envkey", "FOREST_EXECUTOR_ENCRYPTION_KEY", "", nil},
		{"envkey://X/", "envkey", "X", "", nil},
		{"awskms:///alias/forest?region=eu-west-3&profile=prod", "awskms", "", "alias/forest", map[string]string{"region": "eu-west-3", "profile": "prod"}},
		{"awskms:///arn:aws:kms:eu-west-3:111122223333:key/0b5c2f0e", "awskms", "", "arn:aws:kms:eu-west-3:111122223333:key/0b5c2f0e", nil},
		{"gcpkms:///projects/P/locations/L/keyRings/R/cryptoKeys/K", "gcpkms", "", "projects/P/locations/L/keyRings/R/cryptoKeys/K", nil},
		{"vault://vault.example.com:8200/transit/keys/forest?namespace=team-a&role_id_file=%2Frun%2Frole+id", "vault", "vault.example.com:8200", "transit/keys/forest", map[string]string{"namespace": "team-a", "role_id_file": "/run/role id"}},
		{"vault://[::1]:8200/t/k%20y?empty=", "vault", "[::1]:8200", "t/k y", map[string]string{"empty": ""}},
		{"a-1://h?x=a=b", "a-1", "h", "", map[string]string{"x": "a=b"}},
		{"a://h?", "a", "h", "", nil},
	} {
		u, err := core.ParseKeyURI(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if u.Scheme != c.scheme || u.Host != c.host || u.Path != c.path || !maps.Equal(u.Options, c.options) {
			t.Errorf("%s = %+v", c.in, u)
		}
		if u.String() != c.in {
			t.Errorf("String() = %s, want %s", u, c.in)
		}
	}
}

// pasted is what an operator may have put where a key URI belongs.
const pasted = "2b8697a78b4b52a7cc26f007dc30e55e"

// TestParseKeyURIRefuses asserts what is refused, with a reason that helps, and
// that the text repeats nothing of what stood there: it may be a key.
func TestParseKeyURIRefuses(t *testing.T) {
	for in, says := range map[string]string{
		"":                                  "scheme://",
		pasted:                              "scheme://",
		pasted + "://":                      "scheme://",
		"://" + pasted:                      "scheme://",
		"envkey:" + pasted:                  "scheme://",
		"envkey:/" + pasted:                 "scheme://",
		"Envkey://" + pasted:                "scheme://",
		"1env://" + pasted:                  "scheme://",
		" envkey://" + pasted:               "scheme://",
		"vault://user:" + pasted + "@h/x":   "user information",
		"vault://" + pasted + "@h":          "user information",
		"vault://h/x#" + pasted:             "fragment",
		"vault://h/x?a=1#" + pasted:         "fragment",
		"vault://h/%zz" + pasted:            "'%'",
		"vault://h?a=%zz" + pasted:          "'%'",
		"vault://h?" + pasted:               "name=value",
		"vault://h?" + pasted + "=":         "name=value",
		"vault://h?A=" + pasted:             "name=value",
		"vault://h?=" + pasted:              "name=value",
		"vault://h?a=1&&b=" + pasted:        "name=value",
		"vault://h?a=1;b%20=" + pasted:      "", // one option whose value holds ';'
		"vault://h?a=" + pasted + "&a=1":    "more than once",
		"vault://h?a=1&a=" + pasted:         "more than once",
		"vault://h?" + "a=1&" + pasted[:31]: "name=value",
	} {
		u, err := core.ParseKeyURI(in)
		if says == "" {
			if err != nil {
				t.Errorf("%q: %v", in, err)
			}
			continue
		}
		if err == nil {
			t.Errorf("%q parses: %+v", in, u)
			continue
		}
		if !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %q does not say %q", in, err, says)
		}
		if strings.Contains(err.Error(), pasted[:8]) {
			t.Errorf("%q: the error repeats the input: %v", in, err)
		}
	}
}

func TestCheckOptions(t *testing.T) {
	u, err := core.ParseKeyURI("vault://h?regoin=x&auth=y&acount=z")
	if err != nil {
		t.Fatal(err)
	}
	if err := u.CheckOptions("auth", "regoin", "acount"); err != nil {
		t.Errorf("known options: %v", err)
	}
	if err := u.CheckOptions("auth", "region"); err == nil || !strings.Contains(err.Error(), "acount, regoin") || !strings.Contains(err.Error(), "auth, region") {
		t.Errorf("unknown options: %v; want both named, and the known ones", err)
	}
	if err := u.CheckOptions(); err == nil || !strings.Contains(err.Error(), "takes none") {
		t.Errorf("a provider without options: %v", err)
	}
}

// FuzzParseKeyURI checks that what parses is made of what stands there, and that
// no error repeats a longer part of it.
func FuzzParseKeyURI(f *testing.F) {
	seeds, err := os.ReadDir(filepath.Join("testdata", "fuzz", f.Name()))
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seed corpus: %v", err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := core.ParseKeyURI(s)
		if err != nil {
			for i := 0; i+len(pasted) <= len(s); i++ {
				if part := s[i : i+len(pasted)]; strings.Contains(err.Error(), part) && !strings.Contains(parseKeyURITexts, part) {
					t.Fatalf("the error repeats %q: %v", part, err)
				}
			}
			return
		}
		if u.String() != s || !strings.HasPrefix(s, u.Scheme+"://"+u.Host) {
			t.Fatalf("ParseKeyURI(%q) = %+v", s, u)
		}
		if strings.ContainsAny(u.Host, "/?#@") || strings.Contains(s, "#") || len(u.Scheme) > 31 {
			t.Fatalf("ParseKeyURI(%q) = %+v", s, u)
		}
		for name := range u.Options {
			if name == "" || len(name) > 31 {
				t.Fatalf("option %q of %q", name, s)
			}
		}
	})
}

// parseKeyURITexts is the errors' own words, which an input may hold too.
var parseKeyURITexts = func() string {
	var all strings.Builder
	for _, bad := range []string{"", "a://b#", "a://b@", "a://b/%", "a://b?x", "a://b?x=%", "a://b?x=1&x=1"} {
		_, err := core.ParseKeyURI(bad)
		all.WriteString(err.Error())
	}
	return all.String()
}()
