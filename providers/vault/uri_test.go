package vault_test

import (
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/vault"
)

// Every mistake in a key URI is told before anything is asked over the network, with
// what to write instead and without the value, which may be a secret in the wrong
// place.
func TestOpenRefuses(t *testing.T) {
	const token = "&token_file=/run/token"
	notPEM, pem := file(t, "not.pem", "hvs.secret"), newAuthority(t).file(t)
	for uri, want := range map[string]string{
		"vault://h:8200/transit/keys/forest?" + token[1:] + "&colour=red":                         "unknown option colour",
		"vault://h:8200/transit/keys/forest":                                                      "token_file",
		"vault://h:8200/transit/keys/forest?token_file=":                                          "is empty",
		"vault:///transit/keys/forest?" + token[1:]:                                               "HOST:PORT",
		"vault://h/transit/keys/forest?" + token[1:]:                                              "the port",
		"vault://h:0/transit/keys/forest?" + token[1:]:                                            "the port",
		"vault://h:https/transit/keys/forest?" + token[1:]:                                        "the port",
		"vault://:8200/transit/keys/forest?" + token[1:]:                                          "the port",
		"vault://h:8200/transit/forest?" + token[1:]:                                              "MOUNT/keys/NAME",
		"vault://h:8200/transit/keys/?" + token[1:]:                                               "MOUNT/keys/NAME",
		"vault://h:8200/keys/forest?" + token[1:]:                                                 "MOUNT/keys/NAME",
		"vault://h:8200/a//b/keys/forest?" + token[1:]:                                            "MOUNT/keys/NAME",
		"vault://h:8200/a/../b/keys/forest?" + token[1:]:                                          "MOUNT/keys/NAME",
		"vault://h:8200/transit/keys/a%2Fb?" + token[1:]:                                          "MOUNT/keys/NAME",
		"vault://h:8200/transit/keys/a%23b?" + token[1:]:                                          "MOUNT/keys/NAME",
		"vault://h:8200/transit/keys/..?" + token[1:]:                                             "MOUNT/keys/NAME",
		"vault://h:8200/transit/keys/forest?namespace=a//b" + token:                               "namespace",
		"vault://h:8200/transit/keys/forest?tls=off" + token:                                      "plain text",
		"vault://127.0.0.1:8200/transit/keys/forest?tls=no" + token:                               "on (the default) or off",
		"vault://127.0.0.1:1/t/keys/forest?tls=off&ca_cert=x" + token:                             "no use for ca_cert",
		"vault://h:8200/transit/keys/forest?client_cert=a" + token:                                "belong together",
		"vault://h:8200/transit/keys/forest?ca_cert=/nowhere/x" + token:                           "ca_cert",
		"vault://h:8200/transit/keys/forest?ca_cert=" + notPEM + token:                            "no certificate",
		"vault://h:8200/transit/keys/forest?client_cert=" + pem + "&client_key=" + notPEM + token: "private key",
		"vault://h:8200/transit/keys/forest?tls_server_name=a/b" + token:                          "tls_server_name",
		"vault://h:8200/transit/keys/forest?auth=userpass":                                        "token (the default), approle, kubernetes or jwt",
		"vault://h:8200/transit/keys/forest?auth=approle":                                         "role_id_file",
		"vault://h:8200/transit/keys/forest?auth=approle&role_id_file=a" + token:                  "no meaning with auth=approle",
		"vault://h:8200/transit/keys/forest?auth=kubernetes":                                      "role",
		"vault://h:8200/transit/keys/forest?auth=kubernetes&role=a%20b":                           "name of a role",
		"vault://h:8200/transit/keys/forest?auth=jwt&role=a":                                      "jwt_file",
		"vault://h:8200/transit/keys/forest?auth=jwt&role=a&jwt_file=b&auth_mount=..":             "auth_mount",
		"vault://h:8200/transit/keys/forest?auth_mount=x" + token:                                 "no meaning with auth=token",
		"vault://h:8200/" + strings.Repeat("m/", 600) + "keys/forest?" + token[1:]:                "bytes together",
	} {
		parsed, err := core.ParseKeyURI(uri)
		if err != nil {
			t.Fatalf("%s: %v", uri, err)
		}
		p, err := vault.Open(t.Context(), parsed)
		if err == nil || !strings.Contains(err.Error(), want) || p != nil {
			t.Errorf("%s: %v, want an error that says %q", uri, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hvs.secret") {
			t.Errorf("%s: the error quotes a file: %v", uri, err)
		}
	}
}

// Several mistakes are told a line each, and the form of another program is answered with
// what was meant; a variable that is not read is named where it was relied on.
func TestOpenRefusesInLines(t *testing.T) {
	for uri, want := range map[string]string{
		"vault://h/x?colour=red&auth=userpass&tls=no": "unknown option colour|HOST:PORT|on (the default) or off|MOUNT/keys/NAME|token (the default), approle",
		"vault://h:8200/v1/transit/keys/forest":       "leave it out|VAULT_TOKEN is not read|write vault://h:8200/transit/keys/forest?token_file=FILE",
		"vault://forest":                              "VAULT_ADDR is not read|MOUNT/keys/NAME|token_file|write vault://HOST:8200/transit/keys/forest?token_file=FILE",
	} {
		parsed, err := core.ParseKeyURI(uri)
		if err != nil {
			t.Fatal(err)
		}
		_, err = vault.Open(t.Context(), parsed)
		if err == nil {
			t.Fatalf("%s: it was opened", uri)
		}
		parts, lines := strings.Split(want, "|"), strings.Split(err.Error(), "\n")
		if len(lines) != len(parts) {
			t.Errorf("%s: %d lines, want %d:\n%v", uri, len(lines), len(parts), err)
			continue
		}
		for i, part := range parts {
			if !strings.Contains(lines[i], part) {
				t.Errorf("%s: line %d is %q, want it to say %q", uri, i, lines[i], part)
			}
		}
	}
}

// The key's name says where it is, and nothing else: what a login needs may change.
func TestKeyNames(t *testing.T) {
	for path, want := range map[string]string{
		"transit/keys/forest":              "/transit/keys/forest",
		"org/team/transit/keys/forest.1":   "/org/team/transit/keys/forest.1",
		"transit/keys/keys/keys/forest-_1": "/transit/keys/keys/keys/forest-_1",
	} {
		f := newFake(t)
		p := open(t, keyURI(t, f.URL, path, "token_file", file(t, "token", "s.first"), "namespace", "a/b"), nil)
		f.reply("org/team/transit/keys/forest.1", reply{status: 200, body: `{"data":{"latest_version":3}}`})
		f.reply("transit/keys/keys/keys/forest-_1", reply{status: 200, body: `{"data":{"latest_version":3}}`})
		f.reply("transit/keys/forest", reply{status: 200, body: `{"data":{"latest_version":3}}`})
		st, err := p.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if id := core.NewKEKID("vault:"+strings.TrimPrefix(f.URL, "http://")+"/a/b"+want, "3"); st.KEKID != id {
			t.Errorf("the KEK ID is %s, want %s", st.KEKID, id)
		}
	}
}

// Nothing in the environment changes where a request goes or what it carries.
func TestEnvironmentMeansNothing(t *testing.T) {
	f := newFake(t)
	p := openFake(t, f, "namespace", "team-a")
	w := wrapOne(t, p)
	for name, call := range calls(p, w) {
		if err := call(t); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(f.requests) == 0 {
		t.Fatal("the server was not asked")
	}
	for _, r := range f.requests {
		space := strings.TrimSuffix(r.Header.Get("X-Vault-Namespace"), "/lockwood-no-such-namespace")
		if r.Header.Get("X-Vault-Token") != "s.first" || space != "team-a" || r.Header.Get("X-Environment") != "" || r.Header.Get("X-Vault-Wrap-TTL") != "" || r.Header.Get("X-Vault-Request") != "true" {
			t.Errorf("%s carries %v", r.URL.Path, r.Header)
		}
	}
}

// A variable that the library cannot parse is told of, and not quoted.
func TestEnvironmentMalformed(t *testing.T) {
	t.Setenv("VAULT_CLIENT_TIMEOUT", "made-up")
	_, err := vault.Open(t.Context(), keyURI(t, "http://127.0.0.1:1", "transit/keys/forest", "token_file", "x"))
	if err == nil || !strings.Contains(err.Error(), "VAULT_") || strings.Contains(err.Error(), "made-up") {
		t.Errorf("the error is %v", err)
	}
}
