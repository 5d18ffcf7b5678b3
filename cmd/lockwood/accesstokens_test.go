package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// provider is an authorization server that rotates refresh tokens and takes the reuse of
// one for theft: it ends the grant. With grace it answers the last one again.
type provider struct {
	url   string
	grace bool
	hold  atomic.Pointer[chan struct{}] // a request waits for it before it is answered

	mu              sync.Mutex
	current, before string
	n, reused       int
	arrived         chan struct{}
}

func newProvider(t *testing.T, grace bool) *provider {
	t.Helper()
	p := &provider{grace: grace, current: "FAKE-rt-0", arrived: make(chan struct{}, 100)}
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	p.url = s.URL + "/token"
	return p
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	hold := p.hold.Load()
	status, body := p.answer(r.FormValue("refresh_token"))
	select {
	case p.arrived <- struct{}{}:
	default: // nobody counts them
	}
	if hold != nil {
		select {
		case <-*hold:
		case <-r.Context().Done():
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// answer takes the token as soon as it arrives.
func (p *provider) answer(token string) (status int, body string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	switch {
	case token == p.current:
		p.before, p.current = p.current, fmt.Sprintf("FAKE-rt-%d", p.n)
	case p.grace && token == p.before:
	default:
		p.reused++
		p.current = ""
		return http.StatusBadRequest, `{"error":"invalid_grant","error_description":"FAKE-description"}`
	}
	return http.StatusOK, fmt.Sprintf(`{"access_token":"FAKE-at-%d","token_type":"Bearer","expires_in":3600,"refresh_token":%q,"scope":"read"}`, p.n, p.current)
}

func (p *provider) counts() (grants, reused int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n, p.reused
}

const accessTokenRoute = "/mcp-oauth-credentials/srv-1/access-token"

// connect deposits the provider's first refresh token for user 1.
func (p *provider) connect(t *testing.T, s *server) {
	t.Helper()
	body := fmt.Sprintf(`{"mcpServerId":"srv-1","refreshToken":"FAKE-rt-0","tokenEndpoint":%q}`, p.url)
	answers(t, s.call(t, 1, "POST", "/mcp-oauth-credentials", body), 200, `{"stored":true}`)
}

// accessToken asks for an access token of user 1.
func (s *server) accessToken(t *testing.T, body string) (token string, a answer) {
	t.Helper()
	a = s.call(t, 1, "POST", accessTokenRoute, body)
	var got struct {
		AccessToken string `json:"accessToken"`
	}
	if a.status == http.StatusOK && json.Unmarshal([]byte(a.body), &got) != nil {
		t.Errorf("the answer is %s", a.body)
	}
	return got.AccessToken, a
}

// tokenEnv admits the providers of the tests.
func tokenEnv(d *testDatabase) []string {
	return d.with("DRAIN_GRACE=0s", "FOREST_EXECUTOR_ALLOW_LOCAL_TOKEN_ENDPOINTS=true")
}

// expire sets back the end of every access token.
func (d *testDatabase) expire(t *testing.T) {
	t.Helper()
	past := "1"
	if d.pg != nil {
		past = "to_timestamp(1)"
	}
	d.exec(t, "UPDATE "+d.schema+"lockwood_access_tokens SET expires_at = "+past)
}

// Whoever asks, on whichever instance, there is one grant each time that the access token
// has expired, and a strict provider never sees a refresh token twice.
func TestOneGrantOverAllInstances(t *testing.T) {
	rounds := 5
	if os.Getenv("LOCKWOOD_TEST_LONG") != "" {
		rounds = 200
	}
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		p := newProvider(t, false)
		instances := []*server{serve(t, tokenEnv(d)).ready(t), serve(t, tokenEnv(d)).ready(t)}
		p.connect(t, instances[0])
		for round := 1; round <= rounds; round++ {
			want := fmt.Sprintf("FAKE-at-%d", round)
			var all sync.WaitGroup
			for i := range 40 {
				all.Go(func() {
					if got, a := instances[i%2].accessToken(t, ""); got != want {
						t.Errorf("round %d: %d, %s; want %s", round, a.status, a.body, want)
					}
				})
			}
			all.Wait()
			if grants, reused := p.counts(); grants != round || reused != 0 {
				t.Fatalf("round %d: %d grants, %d of a token that was replaced", round, grants, reused)
			}
			d.expire(t)
		}
		metrics := page(t, instances[0].admin+"/metrics") + page(t, instances[1].admin+"/metrics")
		if !strings.Contains(metrics, `lockwood_grants_seconds_count{outcome="granted"}`) || !strings.Contains(metrics, `lockwood_access_tokens_issued_total{source="stored"}`) {
			t.Error("the metrics do not tell")
		}
		for _, s := range instances {
			s.stop(t)
			for _, secret := range []string{"FAKE-at", "FAKE-rt", "FAKE-description"} {
				if strings.Contains(s.log.String()+metrics, secret) {
					t.Errorf("a log or a metric holds %s", secret)
				}
			}
		}
		if !strings.Contains(instances[0].log.String()+instances[1].log.String(), `"event":"access_token_refreshed"`) {
			t.Error("there is no audit line")
		}
	})
}

func page(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// An instance is killed between sending and storing. With a provider that answers the last
// refresh token once more, the next instance takes over, and nobody has to connect again.
func TestAnInstanceIsKilledDuringAGrant(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		t.Parallel()
		p := newProvider(t, true)
		hold := make(chan struct{})
		defer close(hold)
		p.hold.Store(&hold)
		first := serve(t, tokenEnv(d)).ready(t)
		p.connect(t, first)
		go func() { _, _ = first.accessToken(t, "") }()
		<-p.arrived // and has taken the token
		first.kill()
		p.hold.Store(nil)
		past := "1"
		if d.pg != nil {
			past = "to_timestamp(1)"
		}
		d.exec(t, "UPDATE "+d.schema+"lockwood_access_tokens SET lease_until = "+past) // which would take longer than a test should
		second := serve(t, tokenEnv(d)).ready(t)
		began := time.Now()
		got, a := second.accessToken(t, "")
		if got == "" {
			t.Fatalf("%d %s", a.status, a.body)
		}
		if took := time.Since(began); took < 5*time.Second {
			t.Errorf("the lease was taken over after %v: its holder might have lived", took)
		}
		if again, _ := second.accessToken(t, ""); again != got {
			t.Error("it is not stored")
		}
		if grants, reused := p.counts(); grants != 2 || reused != 0 {
			t.Errorf("%d grants, %d refused", grants, reused)
		}
	})
}

// What is under way when an instance is told to end is stored.
func TestAnInstanceEndsDuringAGrant(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		p := newProvider(t, false)
		hold := make(chan struct{})
		p.hold.Store(&hold)
		first := serve(t, tokenEnv(d)).ready(t)
		p.connect(t, first)
		answered := make(chan string, 1)
		go func() {
			got, _ := first.accessToken(t, "")
			answered <- got
		}()
		<-p.arrived
		stopped := make(chan struct{})
		go func() {
			first.stop(t)
			close(stopped)
		}()
		pgtest.Eventually(t, "the service drains", func() bool { return strings.Contains(first.log.String(), "draining") })
		p.hold.Store(nil)
		close(hold)
		if got := <-answered; got != "FAKE-at-1" {
			t.Errorf("the caller got %q", got)
		}
		<-stopped
		second := serve(t, tokenEnv(d)).ready(t)
		if got, a := second.accessToken(t, ""); got != "FAKE-at-1" {
			t.Errorf("%d %s, want the stored token", a.status, a.body)
		}
		if grants, _ := p.counts(); grants != 1 {
			t.Errorf("%d grants", grants)
		}
	})
}

// A rotation takes access tokens along, and the next one is fetched as if nothing had been.
func TestARotationBesideAccessTokens(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		p := newProvider(t, false)
		s := serve(t, tokenEnv(d)).ready(t)
		p.connect(t, s)
		if got, a := s.accessToken(t, ""); got != "FAKE-at-1" {
			t.Fatalf("%d %s", a.status, a.body)
		}
		if r := do(t, d.env, "credentials", "verify"); r.code != 0 || !strings.Contains(r.stdout, "access tokens 1 (0 do not open") {
			t.Errorf("verify: %d %s%s", r.code, r.stdout, r.stderr)
		}
		if r := do(t, d.env, "key", "rotate", "--reseal", "--wait"); r.code != 0 {
			t.Fatalf("rotate: %d %s%s", r.code, r.stdout, r.stderr)
		}
		if n := d.count(t, d.schema+"lockwood_access_tokens WHERE access_token_enc IS NOT NULL"); n != 0 {
			t.Errorf("%d access tokens are left under a destroyed data key", n)
		}
		if got, a := s.accessToken(t, ""); got != "FAKE-at-2" {
			t.Errorf("after it: %d %s", a.status, a.body)
		}
		if _, reused := p.counts(); reused != 0 {
			t.Error("a refresh token was lost")
		}
	})
}

// With the setting off there is no such route.
func TestAccessTokensAreOff(t *testing.T) {
	d := sqliteDatabase(t)
	s := serve(t, append(tokenEnv(d), "FOREST_EXECUTOR_ACCESS_TOKENS=off")).ready(t)
	if _, a := s.accessToken(t, ""); a.status != http.StatusNotFound {
		t.Errorf("%d %s", a.status, a.body)
	}
}
