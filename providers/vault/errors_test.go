package vault_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
)

var sentinels = []error{core.ErrKeyMissing, core.ErrKeyMismatch, core.ErrKeyDenied, core.ErrUnavailable, core.ErrInvalidCiphertext}

// is checks that an error matches one sentinel and no other.
func is(t *testing.T, err, want error, what string) {
	t.Helper()
	for _, s := range sentinels {
		if matches := errors.Is(err, s); matches != (want != nil && errors.Is(want, s)) {
			t.Errorf("%s: %v matches %q: %t", what, err, s, matches)
		}
	}
}

// The table of answers, a row each. The texts are those of Vault and OpenBao, and
// variations that may come.
func TestAnswers(t *testing.T) {
	const (
		encrypt, decrypt, random, key = "transit/encrypt/forest", "transit/decrypt/forest", "transit/random/32", "transit/keys/forest"
		rights                        = "sys/capabilities-self"
	)
	denied, unavailable, invalid := core.ErrKeyDenied, core.ErrUnavailable, core.ErrInvalidCiphertext
	for _, c := range []struct {
		path   string
		status int
		text   string // of the one error; "<" begins a body that is not Vault's
		call   string
		means  error
		says   string
	}{
		{decrypt, 400, "encryption key not found", "unwrap", denied, "vault write -f transit/keys/forest"},
		{encrypt, 400, "encryption key not found", "wrap", denied, "no key forest"},
		{encrypt, 400, "key type ecdsa-p256 not supported for this operation", "wrap", denied, "no key forest"},
		{decrypt, 400, "refusing to use soft-deleted key", "unwrap", denied, "restore it"},
		{encrypt, 400, "the key is soft deleted", "wrap", denied, "restore it"},
		{decrypt, 400, "ciphertext or signature version is disallowed by policy (too old)", "unwrap", denied, "transit/keys/forest/config min_decryption_version"},
		{decrypt, 400, "version disallowed by policy", "unwrap", denied, "min_decryption_version"},
		{decrypt, 400, "Ciphertext version TOO OLD", "unwrap", denied, "min_decryption_version"},
		{decrypt, 400, "no such key version", "unwrap", denied, "trimmed"},
		{encrypt, 400, "missing 'context' for key derivation; the key was created using a derived key", "wrap", denied, "derived=true"},
		{decrypt, 400, "derivation not supported for key type rsa-2048", "unwrap", denied, "derived"},
		{encrypt, 400, "context is required for a derived key", "wrap", denied, "derived"},
		{decrypt, 400, "refusing to support decryption with old convergent encryption key: version 1", "unwrap", denied, "derived"},
		{decrypt, 400, "missing 'context'", "unwrap", denied, "derived"},
		{encrypt, 400, "'[0].associated_data' provided for non-AEAD cipher suite rsa-2048", "wrap", denied, "aes256-gcm96"},
		{encrypt, 400, "message encryption not supported for key type ed25519", "wrap", denied, "aes256-gcm96"},
		{key, 404, `no handler for route "transit/keys/forest". route entry not found.`, "status", denied, "vault secrets enable -path=transit transit"},
		{key, 404, "1 error occurred:\n\t* unsupported path\n\n", "status", denied, "no transit engine"},
		{key, 404, "", "status", denied, "no key forest"},
		{encrypt, 404, `no handler for route "transit/encrypt/forest". route entry not found.`, "wrap", denied, "no transit engine"},
		{random, 405, "1 error occurred:\n\t* unsupported operation\n\n", "generate", denied, "no transit engine"},

		{decrypt, 400, "cipher: message authentication failed", "unwrap", invalid, ""},
		{decrypt, 400, "chacha20poly1305: message authentication failed", "unwrap", invalid, ""},
		{decrypt, 400, "invalid ciphertext: no prefix", "unwrap", invalid, ""},
		{decrypt, 400, "invalid ciphertext: version is too new", "unwrap", invalid, ""},
		{decrypt, 400, "version is too new", "unwrap", invalid, ""},
		{decrypt, 400, "unable to decrypt", "unwrap", invalid, ""},
		{decrypt, 400, "illegal base64 data at input byte 3", "unwrap", invalid, ""},

		{encrypt, 403, "1 error occurred:\n\t* permission denied\n\n", "wrap", denied, `path "transit/encrypt/forest" { capabilities = ["update"] }`},
		{decrypt, 403, "permission denied", "unwrap", denied, `path "transit/decrypt/forest" { capabilities = ["update"] }`},
		{random, 403, "permission denied", "generate", denied, `path "transit/random/32" { capabilities = ["update"] }`},
		{rights, 400, "1 error occurred:\n\t* invalid token\n\n", "status", nil, ""}, // the token works for all else
		{rights, 400, "bad token", "status", nil, ""},

		{encrypt, 400, "something new", "wrap", unavailable, "none that Vault documents"},
		{encrypt, 412, "required index state not present", "wrap", unavailable, "caught up"},
		{decrypt, 429, "request path \"transit/decrypt/forest\": rate limit quota exceeded", "unwrap", unavailable, "quota"},
		{decrypt, 472, "", "unwrap", unavailable, "standby"},
		{decrypt, 473, "", "unwrap", unavailable, "standby"},
		{decrypt, 500, "internal error", "unwrap", unavailable, "its log"},
		{decrypt, 501, "Vault is not initialized", "unwrap", unavailable, "not initialized"},
		{decrypt, 502, "<html>", "unwrap", unavailable, "load balancer"},
		{decrypt, 503, "Vault is sealed", "unwrap", unavailable, "sealed"},
		{key, 503, "Vault is sealed", "status", unavailable, "sealed"},
		{decrypt, 504, "<html>", "unwrap", unavailable, "load balancer"},
		{decrypt, 418, "", "unwrap", unavailable, "none that Vault documents"},
		{decrypt, 307, "<", "unwrap", unavailable, "api_addr"},
		// What is not Vault cannot speak for the key.
		{decrypt, 400, "<html>Client sent an HTTP request to an HTTPS server.", "unwrap", unavailable, "look for a proxy"},
		{decrypt, 403, "<html>Forbidden by the firewall", "unwrap", unavailable, "look for a proxy"},
		{decrypt, 404, "<html>Not found", "unwrap", unavailable, "look for a proxy"},
		{decrypt, 200, "<html>Welcome", "unwrap", unavailable, "look for a proxy"},
		{encrypt, 200, "<html>Welcome", "wrap", unavailable, "look for a proxy"},
	} {
		t.Run(c.call+" "+http.StatusText(c.status)+" "+c.text, func(t *testing.T) {
			f := newFake(t)
			p := openFake(t, f)
			w := wrapOne(t, p)
			body := `{"errors":[` + quoted(c.text) + `,"hvs.secret"]}`
			switch {
			case c.text == "":
				body = `{"errors":[]}`
			case strings.HasPrefix(c.text, "<"):
				body = c.text + "hvs.secret"
			}
			f.reply(c.path, reply{status: c.status, body: body})
			err := calls(p, w)[c.call](t)
			is(t, err, c.means, c.call)
			if c.means == nil && err != nil || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("the error is %v, want it to say %q", err, c.says)
			}
			if err != nil && strings.Contains(err.Error(), "hvs.secret") {
				t.Errorf("the error quotes the server: %v", err)
			}
			f.clear()
			for name, call := range calls(p, w) {
				if err := call(t); err != nil {
					t.Errorf("%s, afterwards: %v", name, err)
				}
			}
		})
	}
}

func quoted(s string) string {
	if s == "" {
		return ""
	}
	return `"` + strings.NewReplacer(`"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(s) + `"`
}

// A refusal of decrypt in unknown words is the wrap's fault if the key opens what it
// wraps, and undecided if it does not.
func TestUnknownRefusal(t *testing.T) {
	for name, c := range map[string]struct {
		times int
		want  error
	}{
		"this wrap":  {1, core.ErrInvalidCiphertext},
		"every wrap": {0, core.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			p := openFake(t, f)
			w := wrapOne(t, p)
			f.reply("transit/decrypt/forest", reply{status: 400, body: `{"errors":["das geht nicht"]}`, times: c.times})
			_, err := p.UnwrapDataKey(t.Context(), w, aad)
			is(t, err, c.want, "unwrapping")
		})
	}
}

// What a login answers.
func TestLoginAnswers(t *testing.T) {
	for _, c := range []struct {
		auth   []string
		status int
		text   string
		means  error
		says   string
	}{
		{approle, 400, "invalid role or secret ID", core.ErrKeyDenied, "secret_id_file"},
		{approle, 400, "missing role_id", core.ErrKeyDenied, "role_id_file"},
		{approle, 401, "", core.ErrKeyDenied, "role_id_file"},
		{kubernetes, 403, "permission denied", core.ErrKeyDenied, "service accounts"},
		{kubernetes, 400, `invalid role name "lockwood"`, core.ErrKeyDenied, "auth/kubernetes"},
		{kubernetes, 404, `no handler for route "auth/kubernetes/login". route entry not found.`, core.ErrKeyDenied, "vault auth enable -path=kubernetes kubernetes"},
		{kubernetes, 403, `no handler for route "auth/kubernetes/login"`, core.ErrKeyDenied, "vault auth enable"},
		{kubernetes, 405, "unsupported operation", core.ErrKeyDenied, "vault auth enable"},
		{kubernetes, 500, "could not load backend configuration", core.ErrUnavailable, "its log"},
		{approle, 429, "", core.ErrUnavailable, "quota"},
		{approle, 503, "Vault is sealed", core.ErrUnavailable, "sealed"},
		{approle, 403, "<html>", core.ErrUnavailable, "proxy"},
		{approle, 200, "<", core.ErrUnavailable, "proxy"},
	} {
		t.Run(c.auth[1]+" "+http.StatusText(c.status)+" "+c.text, func(t *testing.T) {
			f := newFake(t)
			p := openLogin(t, f, nil, c.auth...)
			body := `{"errors":[` + quoted(c.text) + `]}`
			if strings.HasPrefix(c.text, "<") {
				body = c.text
			}
			f.reply("auth/"+c.auth[1]+"/login", reply{status: c.status, body: body})
			_, err := p.Status(t.Context())
			is(t, err, c.means, "logging in")
			if err != nil && (!strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "made-up")) {
				t.Errorf("the error is %v, want it to say %q", err, c.says)
			}
			f.clear()
			if _, err := p.Status(t.Context()); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

// A login that wants more than files give no token.
func TestLoginWithoutToken(t *testing.T) {
	f := newFake(t)
	p := openLogin(t, f, nil, approle...)
	f.reply("auth/approle/login", reply{status: 200, body: `{"auth":{"client_token":"","mfa_requirement":{"mfa_request_id":"x"}}}`})
	_, err := p.Status(t.Context())
	is(t, err, core.ErrKeyDenied, "logging in")
}

// The wait that the server asks for reaches the ring, and is not waited for here.
func TestRetryAfter(t *testing.T) {
	f := newFake(t)
	p := openFake(t, f)
	w := wrapOne(t, p)
	before := f.count("decrypt")
	f.reply("transit/decrypt/forest", reply{status: 429, body: `{"errors":["rate limit quota exceeded"]}`, header: http.Header{"Retry-After": {"37"}}})
	_, err := p.UnwrapDataKey(t.Context(), w, aad)
	is(t, err, core.ErrUnavailable, "unwrapping")
	if after := core.RetryAfter(err); after != 37*time.Second {
		t.Errorf("the wait is %v, want 37s", after)
	}
	if n := f.count("decrypt") - before; n != 1 {
		t.Errorf("the server was asked %d times within its limit of rate", n)
	}
}

// A failure that passes is bridged without the caller's noticing.
func TestShortFailureBridged(t *testing.T) {
	for _, status := range []int{412, 500, 502, 504} {
		f := newFake(t)
		p := openFake(t, f)
		w := wrapOne(t, p)
		f.reply("transit/decrypt/forest", reply{status: status, body: `{"errors":[]}`, times: 1})
		if _, err := p.UnwrapDataKey(t.Context(), w, aad); err != nil {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// A node that is not active sends to the one that is, and the request arrives there as it
// was sent; but never from this machine to another in plain text, nor from TLS to none,
// and once.
func TestRedirect(t *testing.T) {
	for _, status := range []int{http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			f := newFake(t)
			target := f.URL
			redirect := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", target+r.URL.RequestURI()) // as it is, with no body
				w.WriteHeader(status)
			})
			standby := httptest.NewServer(redirect)
			t.Cleanup(standby.Close)
			p := openAt(t, standby.URL)
			dataKey := bytes.Repeat([]byte{0x5a}, core.DataKeySize)
			w, err := p.WrapDataKey(t.Context(), dataKey, aad)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := openFake(t, f).UnwrapDataKey(t.Context(), core.WrappedKey{
				KEKID: core.NewKEKID("vault:"+strings.TrimPrefix(f.URL, "http://")+"/transit/keys/forest", "1"), Wrapped: w.Wrapped,
			}, aad); err != nil || !bytes.Equal(got, dataKey) {
				t.Errorf("what arrived was another data key, or %v", err)
			}
			for name, c := range map[string]struct{ target, says string }{
				"plain text to another machine": {"http://vault.example.com:8200", "plain HTTP"},
				"for ever":                      {standby.URL, "redirect"},
			} {
				target = c.target
				_, err = p.UnwrapDataKey(t.Context(), w, aad)
				is(t, err, core.ErrUnavailable, name)
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%s: %v", name, err)
				}
			}

			a := newAuthority(t)
			secure := startTLS(t, &tls.Config{Certificates: []tls.Certificate{a.issue(t, "127.0.0.1", time.Now().Add(time.Hour))}}, redirect)
			target = f.URL
			before := f.count("")
			_, err = openAt(t, secure.URL, "ca_cert", a.file(t)).Status(t.Context())
			is(t, err, core.ErrUnavailable, "from TLS to none")
			if err == nil || !strings.Contains(err.Error(), "plain HTTP") || f.count("") != before {
				t.Errorf("from TLS to none: %v", err)
			}
		})
	}
}

// The namespace that is away is named, in the words of Vault, and of OpenBao with JSON
// around them and without.
func TestNamespaceAnswers(t *testing.T) {
	const locked = `API access to this namespace has been locked by an administrator - \"team-a/\" must be unlocked to gain access.`
	for name, c := range map[string]struct {
		status int
		body   string
		means  error
		says   string
	}{
		"missing":              {404, `{"errors":["namespace not found"]}`, core.ErrKeyDenied, "there is no namespace team-a"},
		"missing, as text":     {404, "namespace not found\n", core.ErrKeyDenied, "vault namespace create team-a"},
		"missing, of a proxy":  {404, "<html>namespace not found", core.ErrUnavailable, "look for a proxy"},
		"missing, or no right": {403, `{"errors":["permission denied"]}`, core.ErrKeyDenied, "a namespace that does not exist"},
		"locked":               {503, `{"errors":["` + locked + `"]}`, core.ErrUnavailable, "vault namespace unlock team-a"},
		"locked, otherwise":    {403, `{"errors":["` + locked + `"]}`, core.ErrUnavailable, "vault namespace unlock team-a"},
		"sealed":               {503, `{"errors":["namespace is sealed"]}`, core.ErrUnavailable, "the namespace team-a is sealed"},
		"sealed as a whole":    {503, `{"errors":["Vault is sealed"]}`, core.ErrUnavailable, "Vault is sealed"},
	} {
		f := newFake(t)
		p := openFake(t, f, "namespace", "team-a")
		w := wrapOne(t, p)
		f.reply("*", reply{status: c.status, body: c.body})
		for call, do := range calls(p, w) {
			err := do(t)
			is(t, err, c.means, name+", "+call)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s, %s: %v, want it to say %q", name, call, err, c.says)
			}
		}
	}
	f := newFake(t)
	f.reply("*", reply{status: 404, body: `{"errors":["namespace not found"]}`})
	_, err := openLogin(t, f, nil, "auth", "approle").Status(t.Context())
	if err == nil || !strings.Contains(err.Error(), "there is no namespace root") {
		t.Errorf("at a login: %v", err)
	}
}

// A server without namespaces takes any for its own, which is told.
func TestNamespaceIgnored(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*fake)
		options []string
		want    bool
	}{
		"ignored":          {func(*fake) {}, []string{"namespace", "team-a"}, true},
		"no namespace":     {func(*fake) {}, nil, false},
		"honoured":         {func(f *fake) { f.spaces = map[string]bool{"team-a": true} }, []string{"namespace", "team-a"}, false},
		"nothing is known": {func(f *fake) { f.noHelp = true }, []string{"namespace", "team-a"}, false},
	} {
		f := newFake(t)
		c.prepare(f)
		p := openFake(t, f, c.options...)
		for range 2 {
			st, err := p.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(strings.Join(st.Warnings, "\n"), "ignores the option namespace=team-a"); got != c.want {
				t.Errorf("%s: warnings %q", name, st.Warnings)
			}
		}
		if n := f.count("lockwood-no-such-namespace"); n > 0 {
			t.Errorf("%s: the made-up namespace is in a path", name)
		}
	}
}

// A file with a credential that others can read is told of.
func TestOpenFilesWarned(t *testing.T) {
	f := newFake(t)
	path := file(t, "token", "s.first")
	p := open(t, keyURI(t, f.URL, "transit/keys/forest", "token_file", path), nil)
	for mode, want := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o644: true, 0o602: true} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		st, err := p.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(strings.Join(st.Warnings, "\n"), "chmod o= "+path); got != want {
			t.Errorf("%o: warnings %q", mode, st.Warnings)
		}
	}
	secret := file(t, "secret-id", "made-up")
	if err := os.Chmod(secret, 0o604); err != nil {
		t.Fatal(err)
	}
	p = open(t, keyURI(t, f.URL, "transit/keys/forest", "auth", "approle", "role_id_file", file(t, "role-id", "r"), "secret_id_file", secret), nil)
	if st, err := p.Status(t.Context()); err != nil || !strings.Contains(strings.Join(st.Warnings, "\n"), "secret_id_file") {
		t.Errorf("warnings %q, %v", st.Warnings, err)
	}
}

// What the network does.
func TestUnreachable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	for server, want := range map[string]string{
		nobody:                        "nobody listens",
		"https://nobody.invalid:8200": "",
	} {
		p := open(t, keyURI(t, server, "transit/keys/forest", "token_file", file(t, "token", "s.first")), nil)
		_, err := p.Status(t.Context())
		is(t, err, core.ErrUnavailable, server)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want it to say %q", server, err, want)
		}
	}
}

// Files that are not there, or hold something else, are no answer of the key.
func TestCredentialFiles(t *testing.T) {
	f := newFake(t)
	path := file(t, "token", "")
	p := open(t, keyURI(t, f.URL, "transit/keys/forest", "token_file", path), nil)
	for name, spoil := range map[string]func(){
		"empty":     func() { write(t, path, " \n") },
		"two lines": func() { write(t, path, "hvs.secret\nhvs.secret") },
		"binary":    func() { write(t, path, "hvs.secret\x00\x01") },
		"huge":      func() { write(t, path, strings.Repeat("hvs.secret", 10000)) },
		"not there": func() { remove(t, path) },
	} {
		spoil()
		_, err := p.Status(t.Context())
		is(t, err, core.ErrUnavailable, name)
		if err == nil || !strings.Contains(err.Error(), "token_file") || strings.Contains(err.Error(), "hvs.secret") {
			t.Errorf("%s: %v", name, err)
		}
		write(t, path, "")
	}
	write(t, path, "\n s.first \n")
	if _, err := p.Status(t.Context()); err != nil {
		t.Errorf("with the token: %v", err)
	}
	if f.count("") == 0 {
		t.Error("the server was never asked")
	}
}
