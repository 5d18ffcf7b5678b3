package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/oauthex"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// A grant names the resource that the directory says, and the exchange finds the server by
// it. A change of the file counts without a restart.
func TestResources(t *testing.T) {
	d := sqliteDatabase(t)
	var resources atomic.Pointer[[]string]
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		named := r.Form["resource"]
		resources.Store(&named)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"FAKE-at","expires_in":0}`)
	}))
	t.Cleanup(idp.Close)
	entry := map[string]any{"id": "srv-1", "url": "https://mcp.example.com", "authType": "oauth2", "resource": true}
	path := serversFile(t, map[string]any{"one": entry})
	s := serve(t, append(tokenEnv(d), "FOREST_EXECUTOR_MCP_SERVERS_FILE="+path)).ready(t)
	p := &provider{url: idp.URL}
	p.connect(t, s)
	grant := func(want ...string) {
		t.Helper()
		if token, a := s.accessToken(t, ""); token == "" {
			t.Fatalf("%d %s", a.status, a.body)
		}
		if got := *resources.Load(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("the grant names %q, want %q", got, want)
		}
	}
	grant("https://mcp.example.com")
	exchange := func(want int) {
		t.Helper()
		form := url.Values{
			"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {tokenFor(t, s.secret, 1)},
			"subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"}, "resource": {"https://mcp.example.com/"},
		}
		resp, err := http.PostForm(s.base+"/oauth/token", form)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if text, _ := io.ReadAll(resp.Body); resp.StatusCode != want {
			t.Errorf("the exchange: %d %s, want %d", resp.StatusCode, text, want)
		}
	}
	exchange(http.StatusOK)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"mcpServers":{"one":{"id":"srv-1","url":"https://other.example.com"}}}`)
	grant()
	exchange(http.StatusBadRequest)
	write(`{"mcpServers":`)
	grant()
	pgtest.Eventually(t, "the mistake is in the log", func() bool { return strings.Contains(s.log.String(), "the file of MCP servers has a mistake") })
}

// A client that speaks RFC 8693, and is not ours, gets the token that the other route gives
// out.
func TestExchangeOnWholeInstances(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		p := newProvider(t, false)
		entry := map[string]any{"id": "srv-1", "url": "https://mcp.example.com/mcp", "authType": "oauth2"}
		s := serve(t, append(tokenEnv(d), "FOREST_EXECUTOR_MCP_SERVERS_FILE="+serversFile(t, map[string]any{"one": entry}))).ready(t)
		exchange := func(user int64) (string, error) {
			token, err := oauthex.ExchangeToken(t.Context(), s.base+"/oauth/token", &oauthex.TokenExchangeRequest{
				RequestedTokenType: "urn:ietf:params:oauth:token-type:access_token", Audience: "srv-1", Resource: "https://mcp.example.com/mcp", Scope: []string{"read"},
				SubjectToken: tokenFor(t, s.secret, user), SubjectTokenType: "urn:ietf:params:oauth:token-type:jwt",
			}, &oauthex.ClientCredentials{ClientID: "anybody"}, nil)
			if err != nil {
				return "", err
			}
			return token.AccessToken, nil
		}
		p.connect(t, s)
		for range 2 {
			if got, err := exchange(1); got != "FAKE-at-1" || err != nil {
				t.Errorf("%v", err)
			}
		}
		if got, a := s.accessToken(t, ""); got != "FAKE-at-1" {
			t.Errorf("the other route: %d %s", a.status, a.body)
		}
		if _, err := exchange(2); err == nil || !strings.Contains(err.Error(), "invalid_target") {
			t.Errorf("a user without a credential: %v", err)
		}
		if grants, _ := p.counts(); grants != 1 {
			t.Errorf("%d grants", grants)
		}
		s.stop(t)
		if strings.Contains(s.log.String(), "FAKE-at") || strings.Contains(s.log.String(), tokenFor(t, s.secret, 2)) {
			t.Error("the log holds a token")
		}
	})
}

// Forest is asked with the environment's secret, which is in no log.
func TestServersFromForest(t *testing.T) {
	d := sqliteDatabase(t)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	var asked atomic.Int64
	forest := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.URL.Path != "/liana/mcp-server-configs-with-details" || r.Header.Get("forest-secret-key") != "FAKE-env-secret" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = fmt.Fprintf(w, `{"A":{"id":"srv-1","type":"http","url":%q},"B":{"id":"b","command":"x"}}`, gone.URL)
	}))
	t.Cleanup(forest.Close)
	env := append(tokenEnv(d), "FOREST_SERVER_URL="+forest.URL, "FOREST_ENV_SECRET=FAKE-env-secret")
	s := serve(t, env).ready(t)
	for id, want := range map[string]int{"srv-1": http.StatusServiceUnavailable, "b": http.StatusNotFound, "c": http.StatusNotFound} {
		if a := s.call(t, 1, "GET", "/list-mcp-tools?mcpServerId="+id, ""); a.status != want {
			t.Errorf("%s: %d %s, want %d", id, a.status, a.body, want)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("Forest was asked %d times", n)
	}
	if r := do(t, env, "doctor"); !strings.Contains(r.stdout, "MCP servers: 1 server, 1 of them from Forest") {
		t.Errorf("doctor: %s%s", r.stdout, r.stderr)
	}
	s.stop(t)
	if strings.Contains(s.log.String(), "FAKE-env-secret") || !strings.Contains(s.log.String(), "Forest listed the MCP servers") {
		t.Error("the log tells the secret, or nothing")
	}
	if r := do(t, append(env, "FOREST_ENV_SECRET=FAKE-other"), "doctor"); r.code != exitFound || !strings.Contains(r.stdout, "fail  MCP servers: ") || !strings.Contains(r.stdout, "FOREST_ENV_SECRET") || strings.Contains(r.stdout+r.stderr, "FAKE-other") {
		t.Errorf("doctor, with another secret: %d %s%s", r.code, r.stdout, r.stderr)
	}
}

// A mistake in the file keeps the service from starting, and doctor tells it.
func TestAMistakeInTheServers(t *testing.T) {
	d := sqliteDatabase(t)
	path := filepath.Join(t.TempDir(), "servers.json")
	if err := os.WriteFile(path, []byte(`{"mcpServers":{"one":{"url":"http://FAKE.example.com"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	env := d.with("FOREST_EXECUTOR_MCP_SERVERS_FILE=" + path)
	const want = "mcpServers.one: url: it must use https"
	if r := do(t, env, "serve"); r.code != exitUsage || !strings.Contains(r.stderr, want) || strings.Contains(r.stderr, "FAKE") {
		t.Errorf("serve: %d %s", r.code, r.stderr)
	}
	if r := do(t, env, "doctor"); r.code != exitFound || !strings.Contains(r.stdout, "fail  MCP servers: ") || !strings.Contains(r.stdout, want) {
		t.Errorf("doctor: %d %s", r.code, r.stdout)
	}
	if r := do(t, append(env, "FOREST_EXECUTOR_ACCESS_TOKENS=off"), "doctor"); !strings.Contains(r.stdout, "ok    MCP servers: not used") {
		t.Errorf("doctor, where they are off: %d %s", r.code, r.stdout)
	}
	if r := do(t, d.env, "doctor"); !strings.Contains(r.stdout, "ok    MCP servers: no directory is configured") {
		t.Errorf("doctor, without: %d %s", r.code, r.stdout)
	}
	if r := do(t, append(d.env, "FOREST_ENV_SECRET=a b"), "doctor"); !strings.Contains(r.stdout, "FOREST_ENV_SECRET: holds a space") {
		t.Errorf("doctor, with a space: %d %s", r.code, r.stdout)
	}
}
