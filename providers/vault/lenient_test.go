package vault_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/lockwood-kms/lockwood/core/providertest"
)

// lenientFront stands before a server, and answers in its place what that would refuse.
type lenientFront struct {
	*httptest.Server
	behind string

	mu       sync.Mutex
	leniency providertest.Leniency
	last     string // the last ciphertext
}

func newLenientFront(t *testing.T, behind string) *lenientFront {
	t.Helper()
	f := &lenientFront{behind: behind}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// become is the hook of a subject.
func (f *lenientFront) become(_ context.Context, l providertest.Leniency) (func(), error) {
	set := func(l providertest.Leniency) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.leniency = l
	}
	set(l)
	return func() { set("") }, nil
}

// ServeHTTP implements http.Handler.
func (f *lenientFront) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	encrypts := strings.Contains(r.URL.Path, "/encrypt/") && r.Method != http.MethodGet
	decrypts := strings.Contains(r.URL.Path, "/decrypt/")
	if encrypts || decrypts {
		body = f.request(body, decrypts)
	}
	next, err := http.NewRequestWithContext(r.Context(), r.Method, f.behind+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return
	}
	next.Header = r.Header.Clone()
	resp, err := http.DefaultClient.Do(next)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return
	}
	if encrypts && resp.StatusCode == http.StatusOK {
		answer = f.answer(answer)
	}
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	w.WriteHeader(resp.StatusCode)
	_, _ = w.Write(answer)
}

func (f *lenientFront) request(body []byte, decrypts bool) []byte {
	var in map[string]any
	if json.Unmarshal(body, &in) != nil {
		return body
	}
	switch f.leniency {
	case providertest.WrapsNothing:
		if !decrypts {
			in["plaintext"] = ""
		}
	case providertest.WrapsOther:
		if !decrypts {
			in["plaintext"] = base64.StdEncoding.EncodeToString(make([]byte, 32))
		}
	case providertest.OpensMoved:
		delete(in, "associated_data")
	case providertest.OpensAltered:
		if decrypts {
			in["ciphertext"] = f.last
		}
	default:
	}
	return encoded(in, body)
}

func (f *lenientFront) answer(body []byte) []byte {
	var out map[string]any
	if json.Unmarshal(body, &out) != nil {
		return body
	}
	data, _ := out["data"].(map[string]any)
	ciphertext, _ := data["ciphertext"].(string)
	f.last = ciphertext
	end := strings.LastIndexByte(ciphertext, ':') + 1
	sealed, err := base64.StdEncoding.DecodeString(ciphertext[end:])
	if err != nil {
		return body
	}
	switch f.leniency {
	case providertest.WrapsShort:
		data["ciphertext"] = ciphertext[:end] + base64.StdEncoding.EncodeToString(sealed[:len(sealed)-15])
	case providertest.WrapsElsewhere:
		key := make([]byte, 32)
		_, _ = rand.Read(key)
		data["ciphertext"] = ciphertext[:end] + base64.StdEncoding.EncodeToString(gcm(key).Seal(nil, nil, make([]byte, 32), nil))
	default:
	}
	return encoded(out, body)
}

func encoded(v any, otherwise []byte) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return otherwise
	}
	return b
}
