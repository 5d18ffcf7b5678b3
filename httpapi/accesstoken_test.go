package httpapi_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/httpapi"
)

const tokenRoute = route + "/srv-1/access-token"

// fakeTokens answers every demand with token or err.
type fakeTokens struct {
	token  *access.Token
	err    error
	key    access.Key
	demand access.Demand
	calls  int
}

func (f *fakeTokens) Token(_ context.Context, key access.Key, demand access.Demand) (*access.Token, error) {
	f.key, f.demand = key, demand
	f.calls++
	return f.token, f.err
}

func newTokenServer(t *testing.T, fake *fakeTokens) *httpapi.Server {
	t.Helper()
	now := time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
	server, _ := newServer(t, &httpapi.Options{AccessTokens: fake, Now: func() time.Time { return now }})
	return server
}

// tokenAt2030 is a token that is valid at the clock of newTokenServer.
func tokenAt2030(t *testing.T) []string {
	return bearer(sign(t, map[string]any{"id": 7, "exp": 4102444800}))
}

func TestAnAccessToken(t *testing.T) {
	hour, scope := time.Hour+900*time.Millisecond, "read write"
	for name, c := range map[string]struct {
		token access.Token
		want  string
	}{
		"all": {access.Token{AccessToken: "FAKE-at", ExpiresIn: &hour, Scope: &scope},
			`{"accessToken":"FAKE-at","tokenType":"Bearer","expiresIn":3600,"expiresAt":"2030-01-02T04:04:05Z","scope":"read write"}`},
		"no more than the token": {access.Token{AccessToken: "FAKE-at"},
			`{"accessToken":"FAKE-at","tokenType":"Bearer","expiresIn":null,"expiresAt":null,"scope":null}`},
	} {
		t.Run(name, func(t *testing.T) {
			fake := &fakeTokens{token: &c.token}
			w := do(newTokenServer(t, fake), http.MethodPost, tokenRoute, "", tokenAt2030(t)...)
			if w.Code != http.StatusOK || w.Body.String() != c.want || w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("%d %s %v, want %s", w.Code, w.Body, w.Header(), c.want)
			}
			if fake.key != (access.Key{UserID: 7, MCPServerID: "srv-1"}) || fake.demand != (access.Demand{}) {
				t.Errorf("asked for %+v, %+v", fake.key, fake.demand.MinValidity)
			}
		})
	}
}

func TestTheBodyOfADemand(t *testing.T) {
	for body, want := range map[string]*access.Demand{
		``: {}, `  `: {}, `{}`: {},
		`{"rejectedToken":"FAKE-at"}`:                            {Rejected: "FAKE-at"},
		`{"minValiditySeconds":300}`:                             {MinValidity: 5 * time.Minute},
		`{"minValiditySeconds":0,"rejectedToken":"FAKE-at"}`:     {Rejected: "FAKE-at"},
		`{"minValiditySeconds":1,"minValiditySeconds":2}`:        {MinValidity: 2 * time.Second},
		`{"minValiditySeconds":301}`:                             nil,
		`{"minValiditySeconds":-1}`:                              nil,
		`{"minValiditySeconds":1.5}`:                             nil,
		`{"minValiditySeconds":"1"}`:                             nil,
		`{"minValiditySeconds":null}`:                            nil,
		`{"rejectedToken":""}`:                                   nil,
		`{"rejectedToken":5}`:                                    nil,
		`{"rejectedToken":null}`:                                 nil,
		`{"userId":8}`:                                           nil,
		`{"REJECTEDTOKEN":"FAKE-at"}`:                            nil,
		`[]`:                                                     nil,
		`{"rejectedToken":"FAKE-at"`:                             nil,
		`{"rejectedToken":"` + strings.Repeat("x", 1<<20) + `"}`: nil,
	} {
		fake := &fakeTokens{token: &access.Token{AccessToken: "FAKE-at"}}
		w := do(newTokenServer(t, fake), http.MethodPost, tokenRoute, body, tokenAt2030(t)...)
		if refused := w.Code == http.StatusBadRequest || w.Code == http.StatusRequestEntityTooLarge; refused != (want == nil) || refused && fake.calls > 0 {
			t.Errorf("%.80s: %d %s", body, w.Code, w.Body)
			continue
		}
		if want != nil && fake.demand != *want {
			t.Errorf("%.80s: demanded %v with another token %v", body, fake.demand.MinValidity, fake.demand.Rejected == want.Rejected)
		}
		if strings.Contains(w.Body.String(), "FAKE-at") && want == nil {
			t.Errorf("%.80s: the answer repeats the token: %s", body, w.Body)
		}
	}
}

func TestNoAccessToken(t *testing.T) {
	later := func(err error, after time.Duration) error { return &access.RetryError{Err: err, After: after} }
	reauth := `{"awaitingInputReason":"needs-oauth-reauth","mcpServerId":"srv-1"}`
	for name, c := range map[string]struct {
		err    error
		status int
		body   string
		retry  string
	}{
		"reauth":      {access.ErrReauth, 409, reauth, ""},
		"refused":     {&access.GrantError{Verdict: protocol.Refused, After: time.Minute}, 400, `{"code":"token_endpoint_refused"}`, ""},
		"failed":      {&access.GrantError{Verdict: protocol.Failed, After: time.Minute}, 502, `{"code":"token_endpoint_failed"}`, ""},
		"unavailable": {&access.GrantError{Verdict: protocol.Unavailable, After: time.Minute}, 503, `{"code":"token_endpoint_unavailable"}`, "60"},
		"unknown":     {&access.GrantError{Verdict: protocol.Unknown}, 503, `{"code":"token_endpoint_unavailable"}`, "1"},
		"too many":    {later(access.ErrTooMany, 30*time.Second), 429, `{"error":"Too many requests"}`, "30"},
		"busy":        {later(access.ErrBusy, time.Second), 503, `{"code":"server_busy"}`, "1"},
		"waiting":     {later(access.ErrWaiting, time.Second), 503, `{"code":"token_endpoint_unavailable"}`, "1"},
		"no key":      {fmt.Errorf("sealing: %w", core.ErrKeyMissing), 503, `{"code":"executor_encryption_key_missing"}`, ""},
		"no database": {fmt.Errorf("reading: %w", core.ErrStoreUnavailable), 503, `{"code":"database_unavailable"}`, "1"},
		"a defect":    {errors.New("FAKE-secret"), 500, `{"error":"Internal server error"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := do(newTokenServer(t, &fakeTokens{err: c.err}), http.MethodPost, tokenRoute, "", tokenAt2030(t)...)
			if w.Code != c.status || w.Body.String() != c.body || w.Header().Get("Retry-After") != c.retry {
				t.Errorf("%d %s, Retry-After %q; want %d %s, %q", w.Code, w.Body, w.Header().Get("Retry-After"), c.status, c.body, c.retry)
			}
		})
	}
}

func TestTheRouteOfAccessTokens(t *testing.T) {
	fake := &fakeTokens{token: &access.Token{AccessToken: "FAKE-at"}}
	server := newTokenServer(t, fake)
	head := tokenAt2030(t)
	for path, want := range map[string]int{
		"/MCP-oauth-credentials/srv-1/Access-Token/": 200,
		route + "/a%2Fb/access-token":                200,
		route + "/srv-1/access-token/x":              404,
		route + "/a/b/access-token":                  404,
		route + "//access-token":                     404,
	} {
		if w := do(server, http.MethodPost, path, "", head...); w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
	if w := do(server, http.MethodGet, tokenRoute, "", head...); w.Code != 405 || w.Header().Get("Allow") != "POST" {
		t.Errorf("GET: %d, %v", w.Code, w.Header())
	}
	// A server may be called access-token.
	if w := do(server, http.MethodDelete, route+"/access-token", "", head...); w.Code != 204 {
		t.Errorf("DELETE of a server of that name: %d", w.Code)
	}
	fake.calls = 0
	cookie := []string{"Cookie", "forest_session_token=" + strings.TrimPrefix(head[1], "Bearer ")}
	for name, headers := range map[string][]string{"no token": nil, "a cookie": cookie} {
		if w := do(server, http.MethodPost, tokenRoute, "", headers...); w.Code != 401 || fake.calls > 0 {
			t.Errorf("%s: %d, %d calls", name, w.Code, fake.calls)
		}
	}
	long := route + "/" + strings.Repeat("x", 256) + "/access-token"
	if w := do(server, http.MethodPost, long, "", head...); w.Code != 409 || fake.calls > 0 {
		t.Errorf("a long ID: %d, %d calls", w.Code, fake.calls)
	}
	off, _ := newServer(t, nil)
	if w := do(off, http.MethodPost, tokenRoute, "", bearer(tokenOf(t, 7))...); w.Code != 404 {
		t.Errorf("where they are off: %d", w.Code)
	}
}

// TestAccessTokensAreNotLogged holds that no line repeats what a client sent or got.
func TestAccessTokensAreNotLogged(t *testing.T) {
	log := &lockedBuffer{}
	logger := slog.New(httpapi.LogHandler(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	fake := &fakeTokens{token: &access.Token{AccessToken: marker}}
	server, _ := newServer(t, &httpapi.Options{AccessTokens: fake, Logger: logger})
	head := bearer(tokenOf(t, 7))
	for _, err := range []error{nil, access.ErrReauth, &access.GrantError{Verdict: protocol.Failed}} {
		fake.err = err
		do(server, http.MethodPost, tokenRoute, `{"rejectedToken":"`+marker+`"}`, head...)
		do(server, http.MethodPost, tokenRoute, `{"rejectedToken":"`+marker+`","`+marker+`":1}`, head...)
	}
	if bytes.Contains([]byte(log.String()), []byte(fragment)) {
		t.Errorf("the log holds a token:\n%s", log)
	}
}
