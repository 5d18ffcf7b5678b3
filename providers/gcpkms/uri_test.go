package gcpkms_test

import (
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/gcpkms"
)

const goodKey = "projects/acme-prod/locations/europe-west3/keyRings/lockwood/cryptoKeys/forest"

// Every mistake in a key URI is refused with what to do about it.
func TestKeyURIMistakes(t *testing.T) {
	for uri, says := range map[string]string{
		"gcpkms://":        "write gcpkms:///projects/PROJECT",
		"gcpkms:///forest": "write gcpkms:///projects/PROJECT",
		"gcpkms:///projects/p/locations/l/keyRings/r":                                                    "write gcpkms:///projects/PROJECT",
		"gcpkms:///" + goodKey + "/":                                                                     "write gcpkms:///projects/PROJECT",
		"gcpkms:///" + goodKey + "%2Fx":                                                                  "write gcpkms:///projects/PROJECT",
		"gcpkms:///projects/ACME" + goodKey[18:]:                                                         "write gcpkms:///projects/PROJECT",
		"gcpkms:///" + goodKey + strings.Repeat("x", 60):                                                 "write gcpkms:///projects/PROJECT",
		"gcpkms://" + goodKey:                                                                            "a third '/'",
		"gcpkms://cloudkms.googleapis.com/" + goodKey:                                                    "by the option endpoint",
		"gcpkms:///" + goodKey + "/cryptoKeyVersions/3":                                                  "remove /cryptoKeyVersions/",
		"gcpkms:///projects/123456789012/locations/l/keyRings/r/cryptoKeys/k":                            "write its ID",
		"gcpkms:///" + goodKey + "?regoin=x":                                                             "unknown option regoin; known are endpoint, insecure, credentials_file",
		"gcpkms:///" + goodKey + "?endpoint=":                                                            "the option endpoint is empty",
		"gcpkms:///" + goodKey + "?endpoint=http://127.0.0.1:1":                                          "insecure=true",
		"gcpkms:///" + goodKey + "?endpoint=ftp://127.0.0.1:1":                                           "HOST:PORT",
		"gcpkms:///" + goodKey + "?endpoint=user@host":                                                   "HOST:PORT",
		"gcpkms:///" + goodKey + "?endpoint=host/path":                                                   "HOST:PORT",
		"gcpkms:///" + goodKey + "?endpoint=host:port":                                                   "HOST:PORT",
		"gcpkms:///" + goodKey + "?endpoint=host:123456":                                                 "HOST:PORT",
		"gcpkms:///" + goodKey + "?endpoint=:443":                                                        "HOST:PORT",
		"gcpkms:///" + goodKey + "?insecure=yes&endpoint=localhost:1":                                    "write insecure=true",
		"gcpkms:///" + goodKey + "?insecure=true":                                                        "add endpoint=127.0.0.1:PORT",
		"gcpkms:///" + goodKey + "?insecure=true&endpoint=10.0.0.1:1":                                    "127.0.0.1, [::1] and localhost only",
		"gcpkms:///" + goodKey + "?insecure=true&endpoint=kms.example.com:1":                             "127.0.0.1, [::1] and localhost only",
		"gcpkms:///" + goodKey + "?insecure=true&endpoint=localhost.evil.com":                            "127.0.0.1, [::1] and localhost only",
		"gcpkms:///" + goodKey + "?insecure=true&endpoint=localhost:1&quota_project=p":                   "sends no credentials",
		"gcpkms:///" + goodKey + "?insecure=true&endpoint=localhost:1&impersonate_service_account=a@b.c": "sends no credentials",
		"gcpkms:///" + goodKey + "?insecure=true&endpoint=localhost:1&credentials_file=/x":               "sends no credentials",
		"gcpkms:///" + goodKey + "?credentials_file=key.json":                                            "not an absolute path",
		"gcpkms:///" + goodKey + "?credentials_file=/nonexistent/key.json":                               "correct the option credentials_file",
		"gcpkms:///" + goodKey + "?impersonate_service_account=lockwood":                                 "email address of a service account",
		"gcpkms:///" + goodKey + "?quota_project=a/b":                                                    "ID of a project",
	} {
		parsed, err := core.ParseKeyURI(uri)
		if err != nil {
			t.Errorf("%s: %v", uri, err)
			continue
		}
		if _, err := gcpkms.Open(t.Context(), parsed); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v; want it to say %q", uri, err, says)
		}
	}
}

// Several mistakes are told a line each, and the form of another program is answered with
// what was meant.
func TestKeyURIMistakesInLines(t *testing.T) {
	uri, err := core.ParseKeyURI("gcpkms://" + goodKey + "/versions/1?colour=red&quota_project=a/b&insecure=yes")
	if err != nil {
		t.Fatal(err)
	}
	_, err = gcpkms.Open(t.Context(), uri)
	if err == nil {
		t.Fatal("it was opened")
	}
	want := []string{"unknown option colour", "a third '/'", "ID of a project", "write insecure=true", "write gcpkms:///" + goodKey}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d:\n%v", len(lines), len(want), err)
	}
	for i := range want {
		if !strings.Contains(lines[i], want[i]) {
			t.Errorf("line %d is %q, want it to say %q", i, lines[i], want[i])
		}
	}
}

// A provider is made without asking anyone: there is nobody at these endpoints.
func TestKeyURIs(t *testing.T) {
	for _, uri := range []string{
		"gcpkms:///" + goodKey,
		"gcpkms:///projects/example.com:acme/locations/global/keyRings/R_1/cryptoKeys/K-2",
		"gcpkms:///" + goodKey + "?endpoint=cloudkms.europe-west3.rep.googleapis.com",
		"gcpkms:///" + goodKey + "?endpoint=https://cloudkms.internal:8443/",
		"gcpkms:///" + goodKey + "?endpoint=127.0.0.1:1&insecure=true",
		"gcpkms:///" + goodKey + "?endpoint=[::1]:1&insecure=true",
		"gcpkms:///" + goodKey + "?endpoint=http://localhost:1&insecure=true",
		"gcpkms:///" + goodKey + "?impersonate_service_account=lockwood@acme-prod.iam.gserviceaccount.com&quota_project=acme-billing",
	} {
		parsed, err := core.ParseKeyURI(uri)
		if err != nil {
			t.Fatal(err)
		}
		p, err := gcpkms.Open(t.Context(), parsed)
		if err != nil {
			t.Errorf("%s: %v", uri, err)
			continue
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}
