package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// failing makes the last grant of the user's credential a failure with that verdict.
func (d *testDatabase) failing(t *testing.T, user int, verdict string) {
	t.Helper()
	later := "CAST(unixepoch('now', 'subsec') * 1000 AS INTEGER) + 3600000"
	if d.pg != nil {
		later = "now() + interval '1 hour'"
	}
	d.exec(t, fmt.Sprintf("UPDATE %slockwood_access_tokens SET verdict = '%s', failures = 2, next_attempt_at = %s WHERE user_id = %d", d.schema, verdict, later, user))
}

func TestCredentialsList(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		p := newProvider(t, false)
		s := serve(t, tokenEnv(d)).ready(t)
		if r := do(t, d.env, "credentials", "list", "--json"); r.code != exitOK || r.stdout != "[]\n" {
			t.Errorf("an empty store: %d %q %s", r.code, r.stdout, r.stderr)
		}
		p.connect(t, s)
		if got, a := s.accessToken(t, ""); got == "" {
			t.Fatal(a)
		}
		for user := int64(2); user < 4; user++ {
			answers(t, s.call(t, user, "POST", "/mcp-oauth-credentials", `{"mcpServerId":"srv-\u001b[31m","refreshToken":"FAKE-rt-secret","tokenEndpoint":"https://idp.example.com/token"}`), 200, `{"stored":true}`)
			d.exec(t, "INSERT INTO "+d.schema+"lockwood_access_tokens (user_id, mcp_server_id, credential_id, generation) SELECT user_id, mcp_server_id, id, 1000 FROM "+d.table+" WHERE user_id = ?", user)
		}
		d.failing(t, 2, "invalid_client")
		d.failing(t, 3, "unavailable")

		list := func(args ...string) (users []int64) {
			t.Helper()
			var got []struct {
				User  int64  `json:"user_id"`
				State string `json:"state"`
			}
			r := do(t, d.env, append([]string{"credentials", "list", "--json"}, args...)...)
			if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || r.code != exitOK {
				t.Fatalf("%v: %d %s%s", args, r.code, r.stdout, r.stderr)
			}
			for _, c := range got {
				users = append(users, c.User)
			}
			return users
		}
		for args, want := range map[string][]int64{
			"": {1, 2, 3}, "--state connected": {1}, "--state needs_reauth": {2}, "--state failing": {3},
			"--user 3": {3}, "--user 4": nil, "--server srv-1": {1}, "--server srv-1 --user 2": nil,
		} {
			if got := list(strings.Fields(args)...); !slices.Equal(got, want) {
				t.Errorf("%s: users %v, want %v", args, got, want)
			}
		}
		r := do(t, d.env, "credentials", "list")
		for _, want := range []string{
			"user 1, server srv-1: connected, deposited 20", ", refreshed 20", ", access token until 20",
			"user 2, server \"srv-\\x1b[31m\": needs_reauth (invalid_client, 2 failures in a row, asked for again from 20",
			"failing (unavailable, 2 failures", "3 credentials\n",
		} {
			if !strings.Contains(r.stdout, want) {
				t.Errorf("the list lacks %q:\n%s", want, r.stdout)
			}
		}
		for _, secret := range []string{"FAKE-rt", "FAKE-at", "\x1b"} {
			if strings.Contains(r.stdout, secret) {
				t.Errorf("the list holds %q", secret)
			}
		}
		for _, args := range [][]string{{"list", "--state", "dead"}, {"retry"}, {"retry", "--all", "--user", "1"}} {
			if r := do(t, d.env, append([]string{"credentials"}, args...)...); r.code != exitUsage {
				t.Errorf("%v: exit code %d, %s", args, r.code, r.stderr)
			}
		}
		// Without a key that opens anything, the list is the same.
		if other := do(t, d.with("FOREST_EXECUTOR_ENCRYPTION_KEY="+otherKey), "credentials", "list"); other.stdout != r.stdout {
			t.Errorf("with another key: %d %s%s", other.code, other.stdout, other.stderr)
		}
		a := s.call(t, 1, "GET", "/mcp-oauth-credentials", "")
		for _, want := range []string{`"state":"connected","lastRefreshedAt":"20`, `,"accessTokenExpiresAt":"20`} {
			if !strings.Contains(a.body, want) {
				t.Errorf("the user's own list is %s", a.body)
			}
		}
		pgtest.Eventually(t, "the states are counted", func() bool {
			return strings.Contains(page(t, s.admin+"/metrics"), `lockwood_credentials{state="needs_reauth"}`)
		})
	})
}

// A mistake at the token endpoint strands nobody once it is mended.
func TestCredentialsRetry(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		p := newProvider(t, true)
		s := serve(t, tokenEnv(d)).ready(t)
		p.connect(t, s)
		p.mu.Lock()
		p.current, p.before = "", ""
		p.mu.Unlock()
		for range 2 {
			if _, a := s.accessToken(t, ""); a.status != http.StatusConflict {
				t.Fatalf("a dead grant: %d %s", a.status, a.body)
			}
		}
		p.mu.Lock()
		p.current = "FAKE-rt-0"
		p.mu.Unlock()
		if _, a := s.accessToken(t, ""); a.status != http.StatusConflict {
			t.Errorf("within the cool-down: %d %s", a.status, a.body)
		}
		if r := do(t, d.env, "credentials", "retry", "--server", "another"); r.code != exitOK || !strings.HasPrefix(r.stdout, "0 credentials are ") {
			t.Errorf("%d %s%s", r.code, r.stdout, r.stderr)
		}
		r := do(t, d.env, "credentials", "retry", "--server", "srv-1")
		if r.code != exitOK || !strings.HasPrefix(r.stdout, "1 credential is ") || !strings.Contains(r.stderr, "cool_down_ended") {
			t.Fatalf("%d %s%s", r.code, r.stdout, r.stderr)
		}
		if got, a := s.accessToken(t, ""); got == "" {
			t.Errorf("after it: %d %s", a.status, a.body)
		}
		if grants, _ := p.counts(); grants != 2 {
			t.Errorf("%d grants, want one dead and one that is not", grants)
		}
	})
}

// A refresh token that nobody uses is kept alive.
func TestIdleCredentialsAreKeptAlive(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		t.Parallel()
		p := newProvider(t, false)
		s := serve(t, tokenEnv(d)).ready(t)
		p.connect(t, s)
		old := "2001-01-01 00:00:00.000 +00:00"
		d.exec(t, "UPDATE "+d.table+" SET created_at = '"+old+"'")
		s.stop(t)
		s = serve(t, append(tokenEnv(d), "FOREST_EXECUTOR_REFRESH_IDLE_AFTER=1h")).ready(t)
		pgtest.Eventually(t, "the token is refreshed", func() bool {
			return strings.Contains(page(t, s.admin+"/metrics"), `lockwood_idle_refreshes_total{outcome="granted"} 1`)
		})
		if got, a := s.accessToken(t, ""); got != "FAKE-at-1" {
			t.Errorf("%d %s, want the token that is stored", a.status, a.body)
		}
		if grants, reused := p.counts(); grants != 1 || reused != 0 {
			t.Errorf("%d grants, %d of a token that was replaced", grants, reused)
		}
	})
}
