package client_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/lockwood-kms/lockwood/client"
	"github.com/lockwood-kms/lockwood/internal/lockwoodtest"
)

// resource is an MCP server of the tests: it answers 401 to the tokens that it rejects,
// and keeps what it saw.
type resource struct {
	mu       sync.Mutex
	rejects  map[string]bool
	requests []string // "METHOD bearer body"
	redirect string   // where it sends a client, if not ""
}

func (s *resource) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r.Method+" "+r.Header.Get("Authorization")+" "+string(body))
	switch {
	case s.rejects[r.Header.Get("Authorization")]:
		http.Error(w, "no", http.StatusUnauthorized)
	case s.redirect != "":
		http.Redirect(w, r, s.redirect, http.StatusTemporaryRedirect)
	}
}

func (s *resource) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.requests
	s.requests = nil
	return taken
}

// transports tries a transport against an MCP server.
func transports(t *testing.T, i *lockwoodtest.Instance) {
	c := newClient(t, i, nil)
	deposit(t, c, i, "granted", "srv")
	server := &resource{rejects: map[string]bool{"Bearer FAKE-at-1": true}}
	mcp := httptest.NewServer(server)
	defer mcp.Close()
	transport, err := c.Transport("srv", mcp.URL+"/mcp", nil)
	if err != nil {
		t.Fatal(err)
	}
	program := &http.Client{Transport: transport}
	post := func(body io.Reader) (int, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, mcp.URL+"/mcp", body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := program.Do(req)
		if err != nil {
			return 0, err
		}
		_ = resp.Body.Close()
		if req.Header.Get("Authorization") != "" {
			t.Error("the caller's request is changed")
		}
		return resp.StatusCode, nil
	}
	saw := func(what string, want ...string) {
		t.Helper()
		if got := strings.Join(server.take(), ", "); got != strings.Join(want, ", ") {
			t.Errorf("%s: the server saw %s", what, got)
		}
	}

	if status, err := post(strings.NewReader("x")); err != nil || status != http.StatusOK {
		t.Errorf("a rejected token: %d, %v", status, err)
	}
	saw("a rejected token", "POST Bearer FAKE-at-1 x", "POST Bearer FAKE-at-2 x")
	if status, err := post(nil); err != nil || status != http.StatusOK {
		t.Errorf("the next: %d, %v", status, err)
	}
	saw("the next", "POST Bearer FAKE-at-2 ")
	server.rejects["Bearer FAKE-at-2"], server.rejects["Bearer FAKE-at-3"] = true, true
	if status, err := post(nil); err != nil || status != http.StatusUnauthorized {
		t.Errorf("two rejected tokens: %d, %v", status, err)
	}
	saw("two rejected tokens", "POST Bearer FAKE-at-2 ", "POST Bearer FAKE-at-3 ")
	_, err = post(nil)
	if !errors.Is(err, client.ErrTooManyRequests) || strings.Contains(err.Error(), "FAKE") {
		t.Errorf("a third rejected token: %v", err)
	}
	saw("a third rejected token", "POST Bearer FAKE-at-3 ")

	if err := c.Disconnect(t.Context(), "srv"); err != nil {
		t.Fatal(err)
	}
	if _, err := post(strings.NewReader("x")); !errors.Is(err, client.ErrNeedsReauth) {
		t.Errorf("after a disconnect: %v", err)
	}
	saw("after a disconnect")
	otherOrigins(t, c, i)
	bodyOnce(t, c, i)
}

// bodyOnce holds that a token is reported as rejected although the request is not sent
// again.
func bodyOnce(t *testing.T, c *client.Client, i *lockwoodtest.Instance) {
	deposit(t, c, i, "granted", "streaming")
	first, err := c.AccessToken(t.Context(), "streaming", nil)
	if err != nil {
		t.Fatal(err)
	}
	rejected := "Bearer " + string(first.AccessToken)
	server := &resource{rejects: map[string]bool{rejected: true}}
	mcp := httptest.NewServer(server)
	defer mcp.Close()
	transport, err := c.Transport("streaming", mcp.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{http.StatusUnauthorized, http.StatusOK} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, mcp.URL, io.NopCloser(strings.NewReader("x")))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("status %d, want %d", resp.StatusCode, want)
		}
	}
	if got := server.take(); len(got) != 2 || got[0] != "POST "+rejected+" x" || got[1] == got[0] {
		t.Errorf("the server saw %s", got)
	}
}

// otherOrigins holds that only the MCP server's own origin gets the token.
func otherOrigins(t *testing.T, c *client.Client, i *lockwoodtest.Instance) {
	deposit(t, c, i, "granted", "redirecting")
	other := &resource{}
	elsewhere := httptest.NewServer(other)
	defer elsewhere.Close()
	server := &resource{redirect: elsewhere.URL}
	mcp := httptest.NewServer(server)
	defer mcp.Close()
	transport, err := c.Transport("redirecting", mcp.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: transport}).Get(mcp.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if got := strings.Join(append(server.take(), other.take()...), ", "); !strings.HasPrefix(got, "GET Bearer FAKE-at-") || !strings.HasSuffix(got, ", GET  ") {
		t.Errorf("the servers saw %s", got)
	}
	for _, url := range []string{"", "mcp.example.com", "ftp://x", "https://", "https://%zz"} {
		if _, err := c.Transport("srv", url, nil); err == nil {
			t.Errorf("%s: no error", url)
		}
	}
}
