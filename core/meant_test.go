package core_test

import (
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
)

// The forms of go-cloud, sigstore, Tink, smallstep, SOPS and of the services themselves,
// each with the key URI that is meant.
func TestMeantKeyURI(t *testing.T) {
	const (
		arn = "arn:aws:kms:eu-west-3:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
		id  = "1234abcd-12ab-34cd-56ef-1234567890ab"
		gcp = "projects/acme/locations/europe-west3/keyRings/lockwood/cryptoKeys/forest"
	)
	for text, want := range map[string]string{
		arn: "awskms:///" + arn,
		"arn:aws-us-gov:kms:us-gov-west-1:111122223333:alias/forest": "awskms:///arn:aws-us-gov:kms:us-gov-west-1:111122223333:alias/forest",
		" alias/forest\n":                                  "awskms:///alias/forest?region=REGION",
		"aws-kms://" + arn:                                 "awskms:///" + arn,
		"awskms://alias/forest?region=eu-west-3":           "awskms:///alias/forest?region=eu-west-3",
		"awskms://" + id + "?region=us-gov-west-1":         "awskms:///" + id + "?region=us-gov-west-1",
		"awskms://alias/forest?region=secret%20word":       "awskms:///alias/forest?region=REGION",
		"awskms://kms.example.com:4566/alias/forest":       "awskms:///alias/forest?region=REGION&endpoint=https://kms.example.com:4566",
		"awskms:key-id=" + id + ";region=us-east-1":        "awskms:///" + id + "?region=us-east-1",
		"awskms:name=x;key-id=" + id + "?region=eu-west-3": "awskms:///" + id + "?region=eu-west-3",
		"awskms:key-id=" + arn:                             "awskms:///" + arn,
		gcp:                                                "gcpkms:///" + gcp,
		gcp + "/cryptoKeyVersions/3":                       "gcpkms:///" + gcp,
		"gcp-kms://" + gcp:                                 "gcpkms:///" + gcp,
		"gcpkms://" + gcp:                                  "gcpkms:///" + gcp,
		"gcpkms://" + gcp + "/versions/1":                  "gcpkms:///" + gcp,
		"gcpkms:///" + gcp + "/cryptoKeyVersions/1":        "gcpkms:///" + gcp,
		"cloudkms:" + gcp + "/cryptoKeyVersions/1":         "gcpkms:///" + gcp,
		"hashivault://forest":                              "vault://HOST:8200/transit/keys/forest?token_file=FILE",
		"hashivault://forest?engine=kms":                   "vault://HOST:8200/kms/keys/forest?token_file=FILE",
		"vault://forest":                                   "vault://HOST:8200/transit/keys/forest?token_file=FILE",
		"hcvault://vault.example.com:8200/transit/keys/f":  "vault://vault.example.com:8200/transit/keys/f?token_file=FILE",
		"vault://h:8200/v1/transit/keys/forest":            "vault://h:8200/transit/keys/forest?token_file=FILE",
		"https://vault.example.com/v1/a/b/keys/forest":     "vault://vault.example.com:8200/a/b/keys/forest?token_file=FILE",
	} {
		if got, ok := core.MeantKeyURI(text); !ok || got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// What is in our form already, and what may be a secret, has no other.
func TestMeantKeyURINothing(t *testing.T) {
	for _, text := range []string{
		"", "x", "envkey://FOREST_EXECUTOR_ENCRYPTION_KEY", "awskms:///alias/forest?regoin=x", "azurekms://name/key", "pkcs11:token=x",
		"gcpkms:///projects/p/locations/l/keyRings/r/cryptoKeys/k?colour=red",
		"vault://h:8200/transit/keys/forest?colour=red", "vault://vault.example.com", "https://example.com/x",
		"0123456789abcdef0123456789abcdef", "vault://0123456789abcdef0123456789abcdef", "hashivault://0123456789abcdef0123456789abcdef",
		"aws-kms://0123456789abcdef0123456789abcdef", "awskms:key-id=0123456789abcdef0123456789abcdef", "alias/", "alias/ä", "https://user:pass@h/v1/t/keys/k",
	} {
		if got, ok := core.MeantKeyURI(text); ok {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// The error of a text that is no key URI says what to write instead.
func TestParseKeyURIMeant(t *testing.T) {
	_, err := core.ParseKeyURI("awskms:key-id=1234abcd-12ab-34cd-56ef-1234567890ab;region=us-east-1")
	if err == nil || !strings.Contains(err.Error(), "write awskms:///1234abcd-12ab-34cd-56ef-1234567890ab?region=us-east-1") {
		t.Errorf("%v", err)
	}
	var r core.Registry
	r.Register("vault", nil)
	_, err = r.Open(t.Context(), "hashivault://forest")
	if err == nil || !strings.Contains(err.Error(), "known are vault") || !strings.Contains(err.Error(), "\nwrite vault://HOST:8200/transit/keys/forest?token_file=FILE") {
		t.Errorf("%v", err)
	}
}

// What is suggested is a key URI, has no better form, and holds nothing of the text but
// names of keys: no text of a secret comes back.
func FuzzMeantKeyURI(f *testing.F) {
	for _, seed := range []string{
		"arn:aws:kms:eu-west-3:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab", "alias/forest", "awskms://alias/x?region=eu-west-3",
		"awskms:key-id=1234abcd-12ab-34cd-56ef-1234567890ab;region=us-east-1", "gcp-kms://projects/p/locations/l/keyRings/r/cryptoKeys/k/versions/1",
		"cloudkms:projects/p/locations/l/keyRings/r/cryptoKeys/k", "hashivault://forest?engine=kms", "vault://h:8200/v1/transit/keys/forest", "https://h/v1/a/keys/b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		meant, ok := core.MeantKeyURI(text)
		if !ok {
			return
		}
		if _, err := core.ParseKeyURI(meant); err != nil {
			t.Errorf("%q: %q: %v", text, meant, err)
		}
		if again, ok := core.MeantKeyURI(meant); ok {
			t.Errorf("%q: %q, and then %q", text, meant, again)
		}
		if len(meant) > 1024 || strings.ContainsAny(meant, " \t\r\n\x00#@%\"'<>\\") {
			t.Errorf("%q: %q", text, meant)
		}
	})
}
