package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/credential/tokenendpoint"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// A disconnect ends the grant at the server that issued it, where the directory says how.
func TestADisconnectEndsTheGrant(t *testing.T) {
	revoked := make(chan string, 10)
	at := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		revoked <- r.FormValue("token_type_hint") + " " + r.FormValue("token")
	}))
	defer at.Close()
	d := sqliteDatabase(t)
	file := filepath.Join(t.TempDir(), "servers.json")
	text := fmt.Sprintf(`{"mcpServers":{"one":{"id":"srv-1","type":"http","url":%q,"authType":"oauth2","revocationEndpoint":%q}}}`, at.URL+"/mcp", at.URL+"/revoke")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newProvider(t, false)
	s := serve(t, append(tokenEnv(d), "FOREST_EXECUTOR_MCP_SERVERS_FILE="+file)).ready(t)
	p.connect(t, s)
	if got, a := s.accessToken(t, ""); got == "" {
		t.Fatal(a)
	}
	answers(t, s.call(t, 1, "DELETE", "/mcp-oauth-credentials/srv-1", ""), http.StatusNoContent, "")
	if got := <-revoked; got != "refresh_token FAKE-rt-1" {
		t.Errorf("revoked is %q", got)
	}
	pgtest.Eventually(t, "it is counted", func() bool {
		return strings.Contains(page(t, s.admin+"/metrics"), `lockwood_revocations_total{outcome="revoked"} 1`)
	})
	s.stop(t)
	if strings.Contains(s.log.String(), "FAKE-rt") || !strings.Contains(s.log.String(), `"event":"revocation"`) {
		t.Error("the log tells the token, or nothing")
	}
}

func TestSameOrigin(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"https://idp.example.com/revoke", "https://idp.example.com/token", true},
		{"https://idp.example.com:443/revoke", "https://IDP.example.com/token", true},
		{"https://idp.example.com/revoke", "https://idp.example.com:8443/token", false},
		{"https://idp.example.com/revoke", "https://idp.example.com.evil.example/token", false},
		{"https://idp.example.com@evil.example/revoke", "https://idp.example.com/token", false},
		{"https://idp.example.com/revoke", "https://idp%2Eexample.com/token", true},
		{"", "https://idp.example.com/token", false},
		{"https://idp.example.com/revoke", "%", false},
	} {
		if got := sameOrigin(test.a, test.b, tokenendpoint.Options{}); got != test.want {
			t.Errorf("%s and %s: %t", test.a, test.b, got)
		}
	}
}
