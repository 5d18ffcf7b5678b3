package vault_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/vault"
)

// fake is what the documentation says of the transit engine, of tokens and of
// logins, where a test needs an answer that the real server cannot be brought to
// give. Its ciphertexts are real AES-256-GCM.
type fake struct {
	*httptest.Server

	mu       sync.Mutex
	keys     [][]byte // by version, from 1
	tokens   map[string]bool
	logins   int
	ttl      int
	expire   func() time.Time // the clock by which s.first lapses; nil for never
	until    time.Time        // its end, by that clock
	unbound  bool             // associated_data is ignored, as before Vault 1.13
	warns    bool             // and the answer says so
	noHelp   bool             // paths are not described
	spaces   map[string]bool  // namespaces; nil for a server that ignores them
	rights   map[string]any   // capabilities by path, instead of all
	state    map[string]any   // of the key, over the defaults
	replies  map[string]reply
	requests []*http.Request
}

// reply is a fixed answer to a path.
type reply struct {
	status int
	body   string
	header http.Header
	times  int // 0 for ever
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{tokens: map[string]bool{"s.first": true}, replies: make(map[string]reply)}
	f.rotate()
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fake) rotate() {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	f.change(func() { f.keys = append(f.keys, key) })
}

func (f *fake) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// reply makes a path answer as told, until clear.
func (f *fake) reply(path string, r reply) { f.change(func() { f.replies[path] = r }) }

func (f *fake) clear() { f.change(func() { f.replies = make(map[string]reply) }) }

// count returns how many requests there were to paths that contain part.
func (f *fake) count(part string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.requests {
		if strings.Contains(r.URL.RequestURI(), part) {
			n++
		}
	}
	return n
}

// ServeHTTP implements http.Handler.
func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, r)
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	for _, name := range []string{path, "*"} {
		if fixed, ok := f.replies[name]; ok {
			if fixed.times == 1 {
				delete(f.replies, name)
			}
			maps.Copy(w.Header(), fixed.header)
			w.WriteHeader(fixed.status)
			_, _ = w.Write([]byte(fixed.body))
			return
		}
	}
	var in map[string]any
	if r.Method != http.MethodGet {
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil && !errors.Is(err, io.EOF) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"errors":["failed to parse JSON input"]}`))
			return
		}
	}
	status, out := f.answer(path, r, in)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(out)
}

func failed(status int, text string) (int, any) {
	return status, map[string]any{"errors": []string{text}}
}

func (f *fake) answer(path string, r *http.Request, in map[string]any) (int, any) {
	if f.spaces != nil && !f.spaces[r.Header.Get("X-Vault-Namespace")] {
		return failed(http.StatusNotFound, "namespace not found")
	}
	if strings.HasSuffix(path, "/login") {
		if in["role_id"] == nil && in["jwt"] == nil {
			return failed(http.StatusBadRequest, "missing role_id")
		}
		f.logins++
		token := fmt.Sprintf("s.login%d", f.logins)
		f.tokens[token] = true
		return http.StatusOK, map[string]any{"auth": map[string]any{"client_token": token, "lease_duration": f.ttl, "renewable": true}}
	}
	token := r.Header.Get("X-Vault-Token")
	if f.expire != nil {
		now := f.expire()
		if f.until.IsZero() || path == "auth/token/renew-self" && now.Before(f.until) {
			f.until = now.Add(time.Duration(f.ttl) * time.Second)
		}
		f.tokens["s.first"] = now.Before(f.until)
	}
	if !f.tokens[token] {
		return failed(http.StatusForbidden, "permission denied")
	}
	if r.URL.Query().Has("help") {
		if f.noHelp {
			return failed(http.StatusNotFound, "unsupported path")
		}
		text := "Parameters: plaintext, type"
		if !f.unbound {
			text += ", associated_data"
		}
		return http.StatusOK, map[string]any{"help": text}
	}
	if want := methodOf[path]; want != "" && r.Method != want {
		return failed(http.StatusMethodNotAllowed, "1 error occurred:\n\t* unsupported operation\n\n")
	}
	switch path {
	case "auth/token/lookup-self":
		return http.StatusOK, map[string]any{"data": map[string]any{"ttl": f.ttl, "renewable": f.ttl > 0}}
	case "auth/token/renew-self":
		return http.StatusOK, map[string]any{"auth": map[string]any{"client_token": token, "lease_duration": f.ttl, "renewable": true}}
	case "auth/token/revoke-self":
		delete(f.tokens, token)
		return http.StatusNoContent, nil
	case "sys/capabilities-self":
		return http.StatusOK, map[string]any{"data": f.capabilities(in)}
	case "transit/random/32":
		b := make([]byte, 32)
		_, _ = rand.Read(b)
		return data("random_bytes", b)
	case "transit/keys/forest":
		state := map[string]any{"name": "forest", "type": "aes256-gcm96", "latest_version": len(f.keys), "min_decryption_version": 1, "supports_encryption": true}
		maps.Copy(state, f.state)
		return http.StatusOK, map[string]any{"data": state}
	case "transit/encrypt/forest":
		return f.encrypt(in)
	case "transit/decrypt/forest":
		return f.decrypt(in)
	default:
		return failed(http.StatusNotFound, `no handler for route "`+path+`". route entry not found.`)
	}
}

// methodOf are the methods of the paths; PUT and POST are the same to Vault.
var methodOf = map[string]string{
	"auth/token/lookup-self": http.MethodGet, "transit/keys/forest": http.MethodGet,
	"auth/token/renew-self": http.MethodPut, "auth/token/revoke-self": http.MethodPut, "sys/capabilities-self": http.MethodPut,
	"transit/random/32": http.MethodPut, "transit/encrypt/forest": http.MethodPut, "transit/decrypt/forest": http.MethodPut,
}

func data(name string, value any) (int, any) {
	return http.StatusOK, map[string]any{"data": map[string]any{name: value}, "warnings": nil}
}

func (f *fake) capabilities(in map[string]any) map[string]any {
	has := make(map[string]any)
	paths, _ := in["paths"].([]any)
	for _, path := range paths {
		has[fmt.Sprint(path)] = []string{"read", "update"}
	}
	maps.Copy(has, f.rights)
	return has
}

func (f *fake) aad(in map[string]any) []byte {
	if f.unbound {
		return nil
	}
	text, _ := in["associated_data"].(string)
	b, _ := base64.StdEncoding.DecodeString(text)
	return b
}

func gcm(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return aead
}

func (f *fake) encrypt(in map[string]any) (int, any) {
	text, ok := in["plaintext"].(string)
	if !ok {
		return failed(http.StatusBadRequest, "missing plaintext to encrypt")
	}
	plaintext, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return failed(http.StatusBadRequest, err.Error())
	}
	version := len(f.keys)
	sealed := gcm(f.keys[version-1]).Seal(nil, nil, plaintext, f.aad(in))
	out := map[string]any{"data": map[string]any{"ciphertext": fmt.Sprintf("vault:v%d:%s", version, base64.StdEncoding.EncodeToString(sealed)), "key_version": version}}
	if f.warns {
		out["warnings"] = []string{"Endpoint ignored these unrecognized parameters: [associated_data]"}
	}
	return http.StatusOK, out
}

func (f *fake) decrypt(in map[string]any) (int, any) {
	text, ok := in["ciphertext"].(string)
	if !ok {
		return failed(http.StatusBadRequest, "missing ciphertext to decrypt")
	}
	parts := strings.SplitN(text, ":", 3)
	if len(parts) != 3 || parts[0] != "vault" {
		return failed(http.StatusBadRequest, "invalid ciphertext: no prefix")
	}
	version, err := strconv.Atoi(strings.TrimPrefix(parts[1], "v"))
	if err != nil || version > len(f.keys) {
		return failed(http.StatusBadRequest, "invalid ciphertext: version is too new")
	}
	sealed, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil {
		return failed(http.StatusBadRequest, "invalid ciphertext: could not decode base64")
	}
	plaintext, err := gcm(f.keys[max(version, 1)-1]).Open(nil, nil, sealed, f.aad(in))
	if err != nil {
		return failed(http.StatusBadRequest, "cipher: message authentication failed")
	}
	return data("plaintext", plaintext)
}

// isolate gives the VAULT_ variables values that would break whoever heeds them. They are
// the same for all tests, so that tests can run in parallel.
func isolate() {
	for name, value := range map[string]string{
		"VAULT_TOKEN": "s.environment", "VAULT_NAMESPACE": "environment", "VAULT_ADDR": "https://environment.invalid", "VAULT_WRAP_TTL": "60s",
		"VAULT_AGENT_ADDR": "https://environment.invalid", "VAULT_HEADERS": `{"X-Environment":"1"}`, "VAULT_SKIP_VERIFY": "true",
		"HTTP_PROXY": "", "HTTPS_PROXY": "",
	} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
}

// file writes a file of the test's own and returns its path.
func file(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	write(t, path, content)
	return path
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// keyURI returns the URI of a key at a server, with options in pairs. A server
// without TLS gets tls=off.
func keyURI(t *testing.T, server, path string, options ...string) core.KeyURI {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	query := make(url.Values)
	if u.Scheme == "http" {
		query.Set("tls", "off")
	}
	for pair := range slices.Chunk(options, 2) {
		query.Set(pair[0], pair[1])
	}
	uri, err := core.ParseKeyURI("vault://" + u.Host + "/" + path + "?" + query.Encode())
	if err != nil {
		t.Fatal(err)
	}
	return uri
}

// open makes a provider; its clock is the real one unless opts says otherwise.
func open(t *testing.T, uri core.KeyURI, opts *vault.Options) *vault.Provider {
	t.Helper()
	p, err := vault.New(t.Context(), uri, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// openFake makes a provider on a fake, with the token that it knows.
func openFake(t *testing.T, f *fake, options ...string) *vault.Provider {
	t.Helper()
	return openAt(t, f.URL, options...)
}

// openAt makes a provider on what leads to a fake.
func openAt(t *testing.T, url string, options ...string) *vault.Provider {
	t.Helper()
	options = append([]string{"token_file", file(t, "token", "s.first\n")}, options...)
	return open(t, keyURI(t, url, "transit/keys/forest", options...), nil)
}

var aad = core.WrapAAD("3f2b8a54-0c7e-4d0b-9a57-5f1c6d2e8b90", "7")

func wrapOne(t *testing.T, p core.KeyProvider) core.WrappedKey {
	t.Helper()
	w, err := p.WrapDataKey(t.Context(), make([]byte, core.DataKeySize), aad)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// calls are the methods that reach for the server; w is what is unwrapped.
func calls(p core.KeyProvider, w core.WrappedKey) map[string]func(t *testing.T) error {
	return map[string]func(t *testing.T) error{
		"generate": func(t *testing.T) error { _, err := p.GenerateDataKey(t.Context(), aad); return err },
		"wrap": func(t *testing.T) error {
			_, err := p.WrapDataKey(t.Context(), make([]byte, core.DataKeySize), aad)
			return err
		},
		"unwrap": func(t *testing.T) error { _, err := p.UnwrapDataKey(t.Context(), w, aad); return err },
		"status": func(t *testing.T) error { _, err := p.Status(t.Context()); return err },
	}
}
