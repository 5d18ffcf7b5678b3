package main

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/lockwood-kms/lockwood/httpapi/replay"
	"github.com/lockwood-kms/lockwood/internal/openapitest"
)

// contract returns docs/openapi.yaml.
var contract = sync.OnceValues(func() (*openapitest.Document, error) { return openapitest.Load("../../docs/openapi.yaml") })

// Observe implements replay.Observer: each exchange has to be in docs/openapi.yaml.
func (*instances) Observe(_ *replay.Exchange, request []byte, status int, header http.Header, answer []byte) error {
	document, err := contract()
	if err != nil {
		return err
	}
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(request)))
	if err != nil || header.Get("X-Executor-Version") == "" {
		return nil //nolint:nilerr // the recording has requests that are no HTTP, which the HTTP library answers
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil //nolint:nilerr // as above
	}
	return document.Check(&openapitest.Exchange{
		Method: r.Method, Target: r.RequestURI, Header: r.Header, Body: body,
		Status: status, AnswerHeader: header, Answer: answer,
	})
}

// contractTransport is a transport that holds each exchange against docs/openapi.yaml.
type contractTransport struct {
	t     *testing.T
	admin string // the admin listener's host and port
}

func (h contractTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	body := []byte{}
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(answer))
	document, err := contract()
	if err != nil {
		return nil, err
	}
	if err := document.Check(&openapitest.Exchange{
		Admin: r.URL.Host == h.admin, Method: r.Method, Target: r.URL.RequestURI(), Header: r.Header, Body: body,
		Status: resp.StatusCode, AnswerHeader: resp.Header, Answer: answer,
	}); err != nil {
		h.t.Error(err)
	}
	return resp, nil
}

// What a whole instance answers is in docs/openapi.yaml, for each answer that a client and a
// token endpoint can bring about.
func TestAWholeInstanceKeepsTheContract(t *testing.T) {
	t.Parallel()
	endpoint := &scripted{}
	idp := httptest.NewServer(endpoint)
	t.Cleanup(idp.Close)
	d := sqliteDatabase(t)
	s := serve(t, tokenEnv(d)).ready(t)
	client := &http.Client{Transport: contractTransport{t, strings.TrimPrefix(s.admin, "http://")}}
	send := func(method, target, body string, want int) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(target, s.base) {
			req.Header.Set("Authorization", "Bearer "+tokenFor(t, s.secret, 1))
			req.Header.Set("Content-Type", "application/json")
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if text, _ := io.ReadAll(resp.Body); resp.StatusCode != want {
			t.Errorf("%s %s: %d %s, want %d", method, target, resp.StatusCode, text, want)
		}
	}
	for _, path := range []string{"/livez", "/readyz", "/metrics"} {
		send("GET", s.admin+path, "", 200)
	}
	send("GET", s.base+"/health", "", 200)
	for name, c := range map[string]struct {
		status int
		body   string
		want   int
	}{
		"granted":     {200, `{"access_token":"FAKE-at","token_type":"bearer","expires_in":3600,"scope":"read"}`, 200},
		"endless":     {200, `{"access_token":"FAKE-at"}`, 200},
		"dead":        {400, `{"error":"invalid_grant"}`, 409},
		"refused":     {400, `{"error":"invalid_scope"}`, 400},
		"useless":     {200, `{}`, 502},
		"unavailable": {503, `{}`, 503},
	} {
		endpoint.set(c.status, c.body)
		send("POST", s.base+"/mcp-oauth-credentials", strings.ReplaceAll(`{"mcpServerId":"NAME","refreshToken":"FAKE-rt","tokenEndpoint":"`+idp.URL+`/NAME"}`, "NAME", name), 200)
		send("POST", s.base+"/mcp-oauth-credentials/"+name+"/access-token", "", c.want)
		send("GET", s.base+"/mcp-oauth-credentials", "", 200)
	}
	granted := s.base + "/mcp-oauth-credentials/granted"
	endpoint.set(200, `{"access_token":"FAKE-at","expires_in":3600}`)
	for _, want := range []int{200, 200, 429} {
		send("POST", granted+"/access-token", `{"rejectedToken":"FAKE-at"}`, want)
	}
	send("POST", granted+"/access-token", `{"minValiditySeconds":301}`, 400)
	send("POST", s.base+"/mcp-oauth-credentials/none/access-token", "{}", 409)
	send("POST", s.base+"/mcp-oauth-credentials", "{}", 400)
	send("DELETE", granted, "", 204)
	send("GET", s.base+"/nowhere", "", 404)
	send("PUT", granted, "", 405)
}

// scripted is a token endpoint that answers what it is told.
type scripted struct {
	mu     sync.Mutex
	status int
	body   string
}

func (s *scripted) set(status int, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.body = status, body
}

func (s *scripted) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(s.status)
	_, _ = io.WriteString(w, s.body)
}
