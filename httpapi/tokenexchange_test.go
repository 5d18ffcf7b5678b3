package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/access/servers"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/httpapi"
)

const (
	exchangeRoute = "/oauth/token"
	typeJWT       = "urn:ietf:params:oauth:token-type:jwt"
	typeAccess    = "urn:ietf:params:oauth:token-type:access_token"
)

// fakeDirectory has the IDs of servers by resource.
type fakeDirectory map[string][]string

func (d fakeDirectory) FindResource(_ context.Context, uri string) ([]*servers.Server, error) {
	ids, ok := d[uri]
	switch {
	case uri == "https://forest-is-down.example.com/":
		return nil, servers.ErrUnavailable
	case !ok:
		return nil, servers.ErrNotFound
	}
	var found []*servers.Server
	for _, id := range ids {
		found = append(found, &servers.Server{ID: id})
	}
	return found, nil
}

var directory = fakeDirectory{
	"https://mcp.example.com/": {"srv-1"}, "https://mcp.example.com/2": {"srv-2"}, "https://shared.example.com/": {"srv-1", "srv-2"},
}

func newExchange(t *testing.T, fake *fakeTokens) *httpapi.Server {
	t.Helper()
	server, _ := newServer(t, &httpapi.Options{AccessTokens: fake, Servers: directory})
	return server
}

// form is a valid exchange, with changes: a value of "" leaves the parameter out.
func form(t *testing.T, changes ...string) string {
	t.Helper()
	v := url.Values{
		"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {tokenOf(t, 7)}, "subject_token_type": {typeJWT}, "audience": {"srv-1"},
	}
	for i := 0; i < len(changes); i += 2 {
		if v.Del(changes[i]); changes[i+1] != "" {
			v.Set(changes[i], changes[i+1])
		}
	}
	return v.Encode()
}

var formType = []string{"Content-Type", "application/x-www-form-urlencoded"}

// The proof that others speak it: a client that is not ours, unchanged.
func TestTheSDKExchangesTokens(t *testing.T) {
	hour, scope := time.Hour, "read"
	fake := &fakeTokens{token: &access.Token{AccessToken: "FAKE-at", ExpiresIn: &hour, Scope: &scope}}
	endpoint := "http://" + serve(t, newExchange(t, fake)) + exchangeRoute
	request := &oauthex.TokenExchangeRequest{
		RequestedTokenType: typeAccess, Audience: "srv-1", Resource: "https://mcp.example.com/", Scope: []string{"read"},
		SubjectToken: tokenOf(t, 7), SubjectTokenType: typeJWT,
	}
	client := &oauthex.ClientCredentials{ClientID: "anybody", ClientSecretAuth: &oauthex.ClientSecretAuth{ClientSecret: "FAKE-cs"}}
	token, err := oauthex.ExchangeToken(t.Context(), endpoint, request, client, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token.AccessToken != "FAKE-at" || token.TokenType != "Bearer" || token.Extra("issued_token_type") != typeAccess || token.Extra("scope") != "read" || time.Until(token.Expiry) < 50*time.Minute {
		t.Errorf("another token: %v, %v", token.TokenType, token.Expiry)
	}
	if fake.key != (access.Key{UserID: 7, MCPServerID: "srv-1"}) {
		t.Errorf("asked for %+v", fake.key)
	}
	request.Resource = "https://mcp.example.com/2"
	if _, err := oauthex.ExchangeToken(t.Context(), endpoint, request, client, nil); err == nil || !strings.Contains(err.Error(), "invalid_target") {
		t.Errorf("audience and resource of two servers: %v", err)
	}
}

func TestTheAnswerOfAnExchange(t *testing.T) {
	fake := &fakeTokens{token: &access.Token{AccessToken: "FAKE-at"}}
	w := do(newExchange(t, fake), http.MethodPost, "/OAuth/Token/", form(t), formType...)
	const want = `{"access_token":"FAKE-at","issued_token_type":"` + typeAccess + `","token_type":"Bearer"}`
	if w.Code != http.StatusOK || w.Body.String() != want || w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("Pragma") != "no-cache" {
		t.Errorf("%d %s %v", w.Code, w.Body, w.Header())
	}
	// Whatever else seems to authenticate is not looked at.
	for _, headers := range [][]string{{"Authorization", "Basic eDp5"}, {"Authorization", "Bearer " + tokenOf(t, 8)}, {"Authorization", "Bearer FAKE"}, {"Cookie", "forest_session_token=" + tokenOf(t, 8)}} {
		fake.key = access.Key{}
		if w := do(newExchange(t, fake), http.MethodPost, exchangeRoute, form(t), append(headers, formType...)...); w.Code != http.StatusOK || fake.key.UserID != 7 {
			t.Errorf("%.20q: %d for user %d", headers, w.Code, fake.key.UserID)
		}
	}
}

func TestTheParametersOfAnExchange(t *testing.T) {
	scope := "read write"
	for name, c := range map[string]struct{ body, want string }{ // want is the server, or the error
		"empty ones and unknown ones":  {form(t, "client_id", "x", "client_secret", "y", "foo", "bar") + "&foo=baz&code=&actor_token=&resource=&scope=", "srv-1"},
		"the type, by name":            {form(t, "requested_token_type", typeAccess), "srv-1"},
		"another type":                 {form(t, "requested_token_type", typeJWT), "invalid_request"},
		"no grant type":                {form(t, "grant_type", ""), "invalid_request"},
		"another grant type":           {form(t, "grant_type", "refresh_token"), "unsupported_grant_type"},
		"no subject":                   {form(t, "subject_token", ""), "invalid_request"},
		"a subject that is not valid":  {form(t, "subject_token", "FAKE.a.b"), "invalid_request"},
		"no type of subject":           {form(t, "subject_token_type", ""), "invalid_request"},
		"another type of subject":      {form(t, "subject_token_type", typeAccess), "invalid_request"},
		"an actor":                     {form(t, "actor_token", "x"), "invalid_request"},
		"the type of an actor":         {form(t, "actor_token_type", "x"), "invalid_request"},
		"a parameter twice":            {form(t) + "&grant_type=x", "invalid_request"},
		"two subjects":                 {form(t) + "&subject_token=" + tokenOf(t, 8), "invalid_request"},
		"no target":                    {form(t, "audience", ""), "invalid_target"},
		"a resource":                   {form(t, "audience", "", "resource", "https://mcp.example.com/2"), "srv-2"},
		"both":                         {form(t, "resource", "https://mcp.example.com/"), "srv-1"},
		"both, of two servers":         {form(t, "resource", "https://mcp.example.com/2"), "invalid_target"},
		"an unknown resource":          {form(t, "audience", "", "resource", "https://other.example.com/"), "invalid_target"},
		"an unknown resource too":      {form(t, "resource", "https://other.example.com/"), "invalid_target"},
		"a resource of two servers":    {form(t, "audience", "", "resource", "https://shared.example.com/"), "invalid_target"},
		"and one of them":              {form(t, "resource", "https://shared.example.com/"), "srv-1"},
		"two resources":                {form(t, "audience", "", "resource", "https://shared.example.com/") + "&resource=https://mcp.example.com/2", "srv-2"},
		"two resources of two servers": {form(t, "audience", "", "resource", "https://mcp.example.com/") + "&resource=https://mcp.example.com/2", "invalid_target"},
		"an audience twice":            {form(t) + "&audience=srv-1", "srv-1"},
		"two audiences":                {form(t) + "&audience=srv-2", "invalid_target"},
		"two audiences, a resource":    {form(t, "resource", "https://mcp.example.com/") + "&audience=srv-2", "invalid_target"},
		"an audience of no directory":  {form(t, "audience", "any thing"), "any thing"},
		"an ID that none has":          {form(t, "audience", strings.Repeat("x", 256)), "invalid_target"},
		"the same scope":               {form(t, "scope", "write read"), "srv-1"},
		"less":                         {form(t, "scope", "read"), "invalid_scope"},
		"more":                         {form(t, "scope", "read write admin"), "invalid_scope"},
		"Forest does not answer":       {form(t, "audience", "", "resource", "https://forest-is-down.example.com/"), "temporarily_unavailable"},
	} {
		t.Run(name, func(t *testing.T) {
			fake := &fakeTokens{token: &access.Token{AccessToken: "FAKE-at", Scope: &scope}}
			w := do(newExchange(t, fake), http.MethodPost, exchangeRoute, c.body, formType...)
			switch {
			case w.Code == http.StatusOK:
				if fake.key != (access.Key{UserID: 7, MCPServerID: c.want}) {
					t.Errorf("asked for %+v, want %s", fake.key, c.want)
				}
			case !strings.HasPrefix(w.Body.String(), `{"error":"`+c.want+`"`) || strings.Contains(w.Body.String(), "FAKE"):
				t.Errorf("%d %s, want %s", w.Code, w.Body, c.want)
			case fake.calls > 0 && c.want != "invalid_scope":
				t.Error("a token was asked for")
			}
		})
	}
}

func TestNotExchanged(t *testing.T) {
	later := func(err error, after time.Duration) error { return &access.RetryError{Err: err, After: after} }
	for name, c := range map[string]struct {
		err    error
		status int
		body   string
		retry  string
	}{
		"reauth":      {access.ErrReauth, 400, `{"error":"invalid_target","awaitingInputReason":"needs-oauth-reauth","mcpServerId":"srv-1"}`, ""},
		"refused":     {&access.GrantError{Verdict: protocol.Refused}, 400, `{"error":"invalid_target","code":"token_endpoint_refused"}`, ""},
		"failed":      {&access.GrantError{Verdict: protocol.Failed}, 502, `{"error":"server_error","code":"token_endpoint_failed"}`, ""},
		"unavailable": {&access.GrantError{Verdict: protocol.Unavailable, After: time.Minute}, 503, `{"error":"temporarily_unavailable","code":"token_endpoint_unavailable"}`, "60"},
		"too many":    {later(access.ErrTooMany, 30*time.Second), 429, `{"error":"temporarily_unavailable"}`, "30"},
		"no key":      {fmt.Errorf("sealing: %w", core.ErrKeyMissing), 503, `{"error":"temporarily_unavailable","code":"executor_encryption_key_missing"}`, ""},
		"a defect":    {fmt.Errorf("FAKE"), 500, `{"error":"server_error"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := do(newExchange(t, &fakeTokens{err: c.err}), http.MethodPost, exchangeRoute, form(t), formType...)
			if w.Code != c.status || w.Body.String() != c.body || w.Header().Get("Retry-After") != c.retry {
				t.Errorf("%d %s, Retry-After %q; want %d %s, %q", w.Code, w.Body, w.Header().Get("Retry-After"), c.status, c.body, c.retry)
			}
		})
	}
}

// What has shown no token costs little: nothing is decompressed, and little is read.
func TestAnExchangeOfNobody(t *testing.T) {
	fake := &fakeTokens{token: &access.Token{AccessToken: "FAKE-at"}}
	long := form(t) + "&x=" + strings.Repeat("x", 32<<10)
	for name, c := range map[string]struct {
		headers []string
		body    string
		status  int
	}{
		"too long":   {formType, long, http.StatusRequestEntityTooLarge},
		"compressed": {append([]string{"Content-Encoding", "gzip"}, formType...), form(t), http.StatusUnsupportedMediaType},
		"JSON":       {[]string{"Content-Type", "application/json"}, `{}`, http.StatusBadRequest},
		"no type":    {nil, form(t), http.StatusBadRequest},
		"no body":    {formType, "", http.StatusBadRequest},
	} {
		if w := do(newExchange(t, fake), http.MethodPost, exchangeRoute, c.body, c.headers...); w.Code != c.status {
			t.Errorf("%s: %d %s, want %d", name, w.Code, w.Body, c.status)
		} else if !strings.HasPrefix(w.Body.String(), `{"error":"invalid_request"`) {
			t.Errorf("%s: %s", name, w.Body)
		}
	}
	chunked := exchangeRaw(t, serve(t, newExchange(t, fake)), "POST "+exchangeRoute+" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n"+
		fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(long), long))
	if !strings.HasPrefix(chunked, "HTTP/1.1 413 ") {
		t.Errorf("too long, in chunks: %.80s", chunked)
	}
	if fake.calls > 0 {
		t.Error("a token was asked for")
	}
	for method, want := range map[string]int{http.MethodGet: 401, http.MethodOptions: 401} {
		if w := do(newExchange(t, fake), method, exchangeRoute, ""); w.Code != want {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
	if w := do(newExchange(t, fake), http.MethodGet, exchangeRoute, "", bearer(tokenOf(t, 7))...); w.Code != 405 || w.Header().Get("Allow") != "POST" {
		t.Errorf("GET with a token: %d %v", w.Code, w.Header())
	}
	off, _ := newServer(t, nil)
	if w := do(off, http.MethodPost, exchangeRoute, form(t), formType...); w.Code != 401 {
		t.Errorf("where they are off: %d", w.Code)
	}
}

// Bodies that do not come keep nobody out, neither by their number nor by the memory of what
// came of them, and are not waited for.
func TestStalledExchangesMakeRoom(t *testing.T) {
	t.Parallel()
	const head = "POST " + exchangeRoute + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 30000\r\n"
	addr := serve(t, newExchange(t, &fakeTokens{token: &access.Token{AccessToken: "FAKE-at"}}))
	stall := func(text string) net.Conn {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		return c
	}
	start := time.Now()
	first := stall(head + "Expect: 100-continue\r\n\r\n")
	for range 300 {
		stall(head + "\r\n" + strings.Repeat("x", 20<<10))
	}
	for range 10 {
		if answer := exchangeRaw(t, addr, post(form(t))); !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
			t.Errorf("beside bodies that do not come: %.200s", answer)
		}
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	if answer, _ := io.ReadAll(first); !strings.Contains(string(answer), " 503 ") || !strings.HasSuffix(string(answer), `{"error":"temporarily_unavailable","code":"server_busy"}`) {
		t.Errorf("the oldest is told %s", answer)
	}
	start = time.Now()
	r := bufio.NewReader(stall(head + "Expect: 100-continue\r\n\r\n"))
	for _, want := range []int{100, 400} {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%d, want %d", resp.StatusCode, want)
		}
	}
	if took := time.Since(start); took < 2*time.Second || took > 15*time.Second {
		t.Errorf("a body that does not come was waited for %v", took)
	}
}

// post is an exchange as it is sent.
func post(form string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", exchangeRoute, len(form), form)
}

// Whoever comes ends the oldest of those whose bodies are read, and only if they are as many as
// may be; after its body a request is not ended any more.
func TestStrangers(t *testing.T) {
	s := httpapi.NewStrangers(2)
	var leaves []func()
	var contexts []context.Context
	enter := func() {
		ctx, leave := s.Enter(httptest.NewRequest(http.MethodPost, exchangeRoute, nil))
		contexts, leaves = append(contexts, ctx), append(leaves, leave)
	}
	wantEnded := func(want ...int) {
		t.Helper()
		var ended []int
		for i, ctx := range contexts {
			if ctx.Err() != nil {
				ended = append(ended, i)
			}
		}
		if !slices.Equal(ended, want) {
			t.Errorf("ended %v, want %v", ended, want)
		}
	}
	enter()
	enter()
	wantEnded()
	enter()
	wantEnded(0)
	leaves[0]()
	leaves[1]()
	wantEnded(0, 1)
	enter()
	wantEnded(0, 1)
	enter()
	wantEnded(0, 1, 2)
}

// Whoever names no user fills no log, whatever an exchange lacks.
func TestRefusedExchangesDoNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // whose clock stands still
		log, reg := &lockedBuffer{}, prometheus.NewRegistry()
		server, _ := newServer(t, &httpapi.Options{
			AccessTokens: &fakeTokens{err: access.ErrReauth}, Logger: slog.New(httpapi.LogHandler(slog.NewJSONHandler(log, nil))), Registerer: reg,
		})
		bodies := []string{"", form(t, "audience", ""), form(t, "subject_token", ""), strings.Repeat("x", 33<<10)}
		for i := range 400 {
			do(server, http.MethodPost, exchangeRoute, bodies[i%len(bodies)], formType...)
		}
		if n := strings.Count(log.String(), "\n"); n != 50 {
			t.Errorf("%d lines of 400 requests", n)
		}
		if !strings.Contains(log.String(), `"reason":"not_identified"`) || strings.Contains(log.String(), `"user_id"`) {
			t.Errorf("the lines: %.300s", log)
		}
		if n, err := testutil.GatherAndCount(reg, "lockwood_http_denied_total"); err != nil || n != 1 {
			t.Errorf("%d reasons, %v", n, err)
		}
		before := len(log.String())
		do(server, http.MethodPost, exchangeRoute, form(t), formType...)
		if line := log.String()[before:]; !strings.Contains(line, `"user_id":7`) || strings.Contains(line, "reason") {
			t.Errorf("of a known user: %s", line)
		}
	})
}

// countingDirectory counts how often it is asked.
type countingDirectory struct {
	fakeDirectory
	asked int
}

func (d *countingDirectory) FindResource(ctx context.Context, uri string) ([]*servers.Server, error) {
	d.asked++
	return d.fakeDirectory.FindResource(ctx, uri)
}

// The directory is asked a few times for a request, and not once it is known that there is
// no server.
func TestManyTargets(t *testing.T) {
	const one, two = "&resource=https://mcp.example.com/", "&resource=https://mcp.example.com/2"
	for name, c := range map[string]struct {
		body          string
		status, asked int
	}{
		"eight":                  {form(t) + strings.Repeat(one, 7), 200, 7},
		"nine":                   {form(t) + strings.Repeat(one, 8), 400, 0},
		"nine audiences":         {form(t) + strings.Repeat("&audience=srv-1", 8), 400, 0},
		"none left":              {form(t) + two + strings.Repeat(one, 5), 400, 1},
		"none left of resources": {form(t, "audience", "") + one + two + strings.Repeat(one, 5), 400, 2},
		"none at first":          {form(t, "audience", "") + "&resource=https://other.example.com/" + strings.Repeat(one, 5), 400, 1},
	} {
		d := &countingDirectory{fakeDirectory: directory}
		server, _ := newServer(t, &httpapi.Options{AccessTokens: &fakeTokens{token: &access.Token{AccessToken: "FAKE-at"}}, Servers: d})
		w := do(server, http.MethodPost, exchangeRoute, c.body, formType...)
		if w.Code != c.status || d.asked != c.asked || c.status == 400 && !strings.Contains(w.Body.String(), "invalid_target") {
			t.Errorf("%s: %d %s, asked %d times; want %d, %d", name, w.Code, w.Body, d.asked, c.status, c.asked)
		}
	}
}

// What has nothing to do with tokens is an error of OAuth, too.
func TestErrorsBesideAnExchange(t *testing.T) {
	server := newExchange(t, &fakeTokens{})
	panics, _ := newServer(t, &httpapi.Options{AccessTokens: panickingTokens{}})
	addr := serve(t, server)
	if answer := exchangeRaw(t, addr, "POST "+exchangeRoute+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"+
		"Content-Type: application/x-www-form-urlencoded\r\n\r\nzz\r\n"); !strings.HasPrefix(answer, "HTTP/1.1 400 ") || !strings.HasSuffix(answer, `{"error":"invalid_request"}`) {
		t.Errorf("broken chunks: %s", answer)
	}
	if w := do(panics, http.MethodPost, exchangeRoute, form(t), formType...); w.Code != 500 || w.Body.String() != `{"error":"server_error"}` {
		t.Errorf("a defect: %d %s", w.Code, w.Body)
	}
}

type panickingTokens struct{}

func (panickingTokens) Token(context.Context, access.Key, access.Demand) (*access.Token, error) {
	panic("FAKE")
}

// The rate is that of the subject.
func TestTheRateOfExchanges(t *testing.T) {
	server, _ := newServer(t, &httpapi.Options{AccessTokens: &fakeTokens{token: &access.Token{AccessToken: "FAKE-at"}}, RatePerUser: 1, RateBurst: 1})
	for i, want := range []int{200, 429} {
		w := do(server, http.MethodPost, exchangeRoute, form(t), formType...)
		if w.Code != want {
			t.Errorf("request %d: %d", i, w.Code)
		}
		if want == 429 && (w.Body.String() != `{"error":"temporarily_unavailable"}` || w.Header().Get("Retry-After") == "") {
			t.Errorf("%s, Retry-After %q", w.Body, w.Header().Get("Retry-After"))
		}
	}
	if w := do(server, http.MethodPost, exchangeRoute, form(t, "subject_token", tokenOf(t, 8)), formType...); w.Code != 200 {
		t.Errorf("another user: %d", w.Code)
	}
}

// No line repeats what a client sent or got, and refused subjects are counted by reason.
func TestExchangesAreNotLogged(t *testing.T) {
	log := &lockedBuffer{}
	logger := slog.New(httpapi.LogHandler(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	fake := &fakeTokens{token: &access.Token{AccessToken: marker}}
	server, _ := newServer(t, &httpapi.Options{AccessTokens: fake, Servers: directory, Logger: logger})
	for _, err := range []error{nil, access.ErrReauth, &access.GrantError{Verdict: protocol.Refused, Endpoint: marker}} {
		fake.err = err
		for _, body := range []string{form(t), form(t, "subject_token", marker), form(t, "resource", marker), form(t, "scope", marker), form(t, marker, marker)} {
			if w := do(server, http.MethodPost, exchangeRoute, body, formType...); err != nil && strings.Contains(w.Body.String(), fragment) {
				t.Errorf("the answer repeats it: %s", w.Body)
			}
		}
	}
	if bytes.Contains([]byte(log.String()), []byte(fragment)) {
		t.Errorf("the log holds a token:\n%s", log)
	}
	if !strings.Contains(log.String(), `"reason":"malformed"`) {
		t.Errorf("no reason:\n%s", log)
	}
}
