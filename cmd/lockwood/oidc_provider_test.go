package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/lockwood-kms/lockwood/internal/npmtest"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// oidcProvider is a running test/oidc-provider.
type oidcProvider struct {
	Issuer       string `json:"issuer"`
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	RefreshToken string `json:"refresh_token"`

	mu     sync.Mutex
	events map[string]int
}

// startOIDCProvider runs it until the test ends.
func startOIDCProvider(t *testing.T) *oidcProvider {
	t.Helper()
	dir := npmtest.Install(t, "../../test/oidc-provider", "server.mjs")
	cmd := exec.CommandContext(t.Context(), "node", filepath.Join(dir, "server.mjs"))
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(said)
	p := &oidcProvider{events: make(map[string]int)}
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), p) != nil || p.RefreshToken == "" {
		t.Fatalf("it says %q", lines.Text())
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines.Scan() {
			var line struct {
				Event string `json:"event"`
			}
			if json.Unmarshal(lines.Bytes(), &line) == nil {
				p.mu.Lock()
				p.events[line.Event]++
				p.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait()
	})
	return p
}

func (p *oidcProvider) count(event string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.events[event]
}

// A server that is not ours rotates refresh tokens and revokes the grant when an old one
// comes back. Round for round, callers of several instances find the token expired, and
// nobody ever has to connect again.
func TestARealServerThatRotates(t *testing.T) {
	t.Parallel()
	p := startOIDCProvider(t)
	rounds, instances, callers := 5, 2, 10
	if longForm() {
		rounds, instances, callers = 200, 10, 100
	}
	cluster := pgtest.Shared(t)
	d := postgresDatabase(t, cluster)
	d.env = d.with("DATABASE_URL=" + cluster.PgBouncer(t, 20)(d.url))
	all := instancesOf(t, instances, tokenEnv(d))
	body := fmt.Sprintf(`{"mcpServerId":"srv-1","refreshToken":%q,"clientId":%q,"clientSecret":%q,"tokenEndpoint":%q}`, p.RefreshToken, p.ClientID, p.ClientSecret, p.Issuer+"/token")
	answers(t, all[0].call(t, 1, "POST", "/mcp-oauth-credentials", body), http.StatusOK, `{"stored":true}`)
	for round := 1; round <= rounds; round++ {
		var asking sync.WaitGroup
		var mu sync.Mutex
		got := make(map[string]int)
		for i := range instances * callers {
			asking.Go(func() {
				token, a := all[i%instances].accessToken(t, "")
				if token == "" {
					t.Errorf("round %d: %d %s", round, a.status, a.body)
				}
				mu.Lock()
				defer mu.Unlock()
				got[token]++
			})
		}
		asking.Wait()
		if len(got) != 1 {
			t.Errorf("round %d: %d access tokens, want the same for all", round, len(got))
		}
		pgtest.Eventually(t, "the server tells of the grant", func() bool { return p.count("grant.success") >= round })
		if n, refused := p.count("grant.success"), p.count("grant.error"); n != round || refused != 0 || t.Failed() {
			t.Fatalf("round %d: %d grants, %d refused", round, n, refused)
		}
		d.expire(t)
	}
	if n := p.count("grant.revoked"); n != 0 {
		t.Errorf("the grant was revoked %d times", n)
	}
	// The server is as strict as it is meant to be.
	answer := do(t, d.env, "credentials", "list")
	if answer.code != exitOK || !strings.Contains(answer.stdout, "connected") {
		t.Errorf("%d %s%s", answer.code, answer.stdout, answer.stderr)
	}
	form := "grant_type=refresh_token&refresh_token=" + p.RefreshToken
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.Issuer+"/token", strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(p.ClientID, p.ClientSecret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("the reuse of a token: %s", resp.Status)
	}
	if _, a := all[0].accessToken(t, ""); a.status != http.StatusConflict {
		t.Errorf("after the reuse: %d %s, want the user to connect again", a.status, a.body)
	}
}
