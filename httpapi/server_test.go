package httpapi_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/httpapi"
)

func TestFailures(t *testing.T) {
	server, fake := newServer(t, nil)
	later := &core.RetryAfterError{After: 1500 * time.Millisecond, Err: core.ErrUnavailable}
	for _, test := range []struct {
		err        error
		status     int
		body       string
		retryAfter string
	}{
		{core.ErrKeyMissing, 503, `{"code":"executor_encryption_key_missing"}`, ""},
		{core.ErrKeyMismatch, 503, `{"code":"executor_encryption_key_mismatch"}`, ""},
		{credential.ErrQuotaExceeded, 409, `{"code":"credential_quota_exceeded"}`, ""},
		{core.ErrOutcomeUnknown, 503, `{"code":"database_unavailable"}`, "1"},
		{core.ErrKeyDenied, 503, `{"code":"key_provider_denied"}`, ""},
		{core.ErrUnavailable, 503, `{"code":"key_provider_unavailable"}`, "1"},
		{later, 503, `{"code":"key_provider_unavailable"}`, "2"},
		{core.ErrStoreUnavailable, 503, `{"code":"database_unavailable"}`, "1"},
		{errors.Join(core.ErrKeyMissing, core.ErrStoreUnavailable), 503, `{"code":"database_unavailable"}`, "1"},
		{core.ErrRowsHidden, 503, `{"code":"database_hides_rows"}`, ""},
		{credential.ErrUnstorable, 400, `{"error":"Invalid request body — a value holds a character that the database cannot hold"}`, ""},
		{envelope.ErrNUL, 400, `{"error":"Invalid request body — a value holds a NUL character"}`, ""},
		{errors.New("a secret detail"), 500, `{"error":"Internal server error"}`, ""},
	} {
		fake.reset(fmt.Errorf("storing credential: %w", test.err))
		for target, body := range map[[2]string]string{{"POST", route}: validBody, {"GET", route}: "", {"DELETE", route + "/x"}: ""} {
			// Not every error comes of every route, and so the contract has not all of them.
			w := doAnything(server, target[0], target[1], body, bearer(tokenOf(t, 7))...)
			if w.Code != test.status || w.Body.String() != test.body || w.Header().Get("Retry-After") != test.retryAfter {
				t.Errorf("%v: %s %d %s, Retry-After %q", test.err, target[0], w.Code, w.Body, w.Header().Get("Retry-After"))
			}
		}
	}
}

func TestList(t *testing.T) {
	server, fake := newServer(t, nil)
	expires := time.Date(10000, 1, 2, 3, 4, 5, 6_000_000, time.UTC)
	method, scopes, client, secret := "none", "a \"b\" \u2028 <c>", "client-1", core.Secret("FAKE-client-secret")
	for user, d := range map[int64]*credential.Deposit{
		7: {MCPServerID: "srv-2", RefreshToken: "FAKE-refresh-token", TokenEndpoint: "https://idp.example.com/token"},
		8: {MCPServerID: "another user's", TokenEndpoint: "https://idp.example.com/token"},
	} {
		if err := fake.Deposit(t.Context(), user, d); err != nil {
			t.Fatal(err)
		}
	}
	if err := fake.Deposit(t.Context(), 7, &credential.Deposit{
		MCPServerID: "srv-1", RefreshToken: "FAKE-refresh-token", ClientID: &client, ClientSecret: &secret,
		ClientSecretExpiresAt: &expires, TokenEndpoint: "https://idp.example.com/token",
		TokenEndpointAuthMethod: &method, Scopes: &scopes,
	}); err != nil {
		t.Fatal(err)
	}
	fake.dead = map[string]bool{"srv-1": true}
	const want = `{"credentials":[` +
		`{"mcpServerId":"srv-1","clientId":"client-1","hasClientSecret":true,"clientSecretExpiresAt":"+010000-01-02T03:04:05.006Z",` +
		`"tokenEndpoint":"https://idp.example.com/token","tokenEndpointAuthMethod":"none","scopes":"a \"b\" ` + "\u2028" + ` <c>",` +
		`"createdAt":"2026-01-02T03:04:05.678Z","updatedAt":"2026-01-02T04:04:05.678Z",` +
		`"state":"needs_reauth","lastRefreshedAt":"2026-01-02T05:04:05.678Z","accessTokenExpiresAt":"2026-01-02T06:04:05.678Z"},` +
		`{"mcpServerId":"srv-2","clientId":null,"hasClientSecret":false,"clientSecretExpiresAt":null,` +
		`"tokenEndpoint":"https://idp.example.com/token","tokenEndpointAuthMethod":null,"scopes":null,` +
		`"createdAt":"2026-01-02T03:04:05.678Z","updatedAt":"2026-01-02T04:04:05.678Z",` +
		`"state":"connected","lastRefreshedAt":null,"accessTokenExpiresAt":null}]}`
	got := do(server, "GET", "/MCP-oauth-credentials/", "", bearer(tokenOf(t, 7))...)
	if got.Code != 200 || got.Body.String() != want || got.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("got %d %s\nwant %s", got.Code, got.Body, want)
	}
	got = do(server, "GET", route, "", bearer(tokenOf(t, 9))...)
	if got.Code != 200 || got.Body.String() != `{"credentials":[]}` {
		t.Errorf("a user without credentials: %d %s", got.Code, got.Body)
	}
	if got := do(server, "GET", route, ""); got.Code != 401 {
		t.Errorf("without a token: %d", got.Code)
	}
}

func TestDisconnectDecodesOnce(t *testing.T) {
	server, fake := newServer(t, nil)
	addr := serve(t, server)
	// One connection for all, so that each request line but the first follows a
	// response.
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	token := tokenOf(t, 7)
	buf := make([]byte, 4096)
	for path, id := range map[string]string{
		"a%zz": "a%zz", "a%2Fb%zz": "a%2Fb%zz", "a%252Fb": "a%2Fb", "%": "%", "a%2": "a%2", "a+b": "a+b", "%61": "a",
		"x%ff": "x%ff", "a%20b/": "a b", "\xc3\xa9": "\u00c3\u00a9", "%C3%A9": "\u00e9", "a%zz?x=%zz": "a%zz", "..": "..", "a#b": "a",
	} {
		fake.reset(nil)
		if err := fake.Deposit(t.Context(), 7, &credential.Deposit{MCPServerID: id}); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "DELETE %s/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", route, path, token)
		n, err := conn.Read(buf)
		if err != nil || !bytes.HasPrefix(buf[:n], []byte("HTTP/1.1 204 ")) {
			t.Fatalf("%q: %q, %v", path, buf[:n], err)
		}
		if fake.row(7, id) != nil {
			t.Errorf("%q does not name %q", path, id)
		}
	}
	fake.reset(nil)
	tooLong := route + "/" + strings.Repeat("%F0%9F%98%80", 127) + "ab"
	if got := do(server, "DELETE", tooLong, "", bearer(token)...); got.Code != 204 || fake.callCount() != 0 {
		t.Errorf("an ID of 256 characters: %d, %d calls", got.Code, fake.callCount())
	}
	if got := do(server, "DELETE", route+"/a%00b", "", bearer(token)...); got.Code != 204 || fake.callCount() != 0 {
		t.Errorf("an ID with NUL: %d, %d calls", got.Code, fake.callCount())
	}
}

func TestPaths(t *testing.T) {
	server, _ := newServer(t, nil)
	auth := bearer(tokenOf(t, 7))
	for _, test := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"HEAD", "/health", 404, ""},
		{"POST", "/health", 404, ""},
		{"GET", "/health/", 404, ""},
		{"GET", "/HEALTH", 404, ""},
		{"HEAD", route, 405, "GET, POST"},
		{"PUT", route, 405, "GET, POST"},
		{"OPTIONS", route, 200, "GET, POST"},
		{"TRACE", route, 501, "GET, POST"},
		{"POST", route + "/x", 405, "DELETE"},
		{"HEAD", route + "/x", 405, "DELETE"},
		{"OPTIONS", route + "/x", 200, "DELETE"},
		{"PROPFIND", "/nope", 501, ""},
		{"OPTIONS", "/nope", 404, ""},
		{"DELETE", route + "/a/b", 404, ""},
		{"DELETE", route + "//", 404, ""},
		{"DELETE", route + "x", 404, ""},
		{"GET", "/metrics", 404, ""},
		{"GET", "/livez", 404, ""},
	} {
		got := do(server, test.method, test.path, "", auth...)
		if got.Code != test.status || got.Header().Get("Allow") != test.allow {
			t.Errorf("%s %s: %d, Allow %q", test.method, test.path, got.Code, got.Header().Get("Allow"))
		}
		if got := do(server, test.method, test.path, ""); got.Code != 401 {
			t.Errorf("%s %s without a token: %d", test.method, test.path, got.Code)
		}
	}
}

func compressed(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := io.WriteString(w, text)
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestBodies(t *testing.T) {
	server, _ := newServer(t, nil)
	padding := strings.Repeat(" ", 1<<20)
	for name, test := range map[string]struct {
		body     string
		encoding string
		status   int
	}{
		"plain":                       {validBody, "", 200},
		"byte order mark":             {"\ufeff" + validBody, "", 200},
		"two byte order marks":        {"\ufeff\ufeff" + validBody, "", 400},
		"as long as allowed":          {validBody + padding[len(validBody):], "", 200},
		"a byte longer":               {validBody + padding[len(validBody)-1:], "", 413},
		"gzip":                        {compressed(t, validBody), "gzip", 200},
		"gzip called deflate":         {compressed(t, validBody), "deflate", 200},
		"gzip as long as allowed":     {compressed(t, validBody+padding[len(validBody):]), "gzip", 200},
		"a bomb":                      {compressed(t, validBody+padding), "gzip", 413},
		"truncated gzip":              {compressed(t, validBody)[:40], "gzip", 400},
		"no gzip at all":              {validBody, "gzip", 400},
		"no brotli at all":            {validBody, "br", 400},
		"empty gzip":                  {"", "gzip", 400},
		"encoding in capitals":        {compressed(t, validBody), "GZIP", 415},
		"two encodings":               {compressed(t, validBody), "gzip, gzip", 415},
		"an encoding that is no more": {validBody, "compress", 415},
	} {
		headers := bearer(tokenOf(t, 7))
		if test.encoding != "" {
			headers = append(headers, "Content-Encoding", test.encoding)
		}
		if got := do(server, "POST", route, test.body, headers...); got.Code != test.status {
			t.Errorf("%s: %d %s, want %d", name, got.Code, got.Body, test.status)
		}
	}
}

func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, _ := newServer(t, &httpapi.Options{RatePerUser: 0.5, RateBurst: 2})
		send := func(user int) (int, string) {
			got := do(server, "GET", route, "", bearer(tokenOf(t, user))...)
			return got.Code, got.Header().Get("Retry-After")
		}
		for i, want := range []int{200, 200, 429, 429} {
			if got, after := send(7); got != want || (after == "2") != (want == 429) {
				t.Errorf("request %d: %d, Retry-After %q", i, got, after)
			}
		}
		if got, _ := send(8); got != 200 {
			t.Errorf("another user: %d", got)
		}
		time.Sleep(2 * time.Second) // the bubble's clock
		if got, _ := send(7); got != 200 {
			t.Errorf("after the wait: %d", got)
		}
	})
}

// panicking panics with what a log must not show.
type panicking struct{ *fakeCredentials }

func (panicking) Deposit(_ context.Context, _ int64, d *credential.Deposit) error {
	panic(string(d.RefreshToken))
}

func TestLogs(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(httpapi.LogHandler(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	server, err := httpapi.New(panicking{newFake()}, authSecret, &httpapi.Options{
		Logger: logger, Version: "1.2.3", TrustedProxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	if err != nil {
		t.Fatal(err)
	}
	token := tokenOf(t, 7)
	headers := append(bearer(token), "X-Request-Id", "request-1")
	got := do(server, "POST", route+"?token=FAKE-in-query", validBody, headers...)
	if got.Code != 500 || got.Body.String() != `{"error":"Internal server error"}` ||
		got.Header().Get("X-Request-Id") != "request-1" || got.Header().Get("X-Executor-Version") != "1.2.3" {
		t.Errorf("after a panic: %d %s %v", got.Code, got.Body, got.Header())
	}
	do(server, "POST", route, `{"refreshToken":"FAKE-refresh-token" oops`, headers...)
	do(server, "POST", route, `{"FAKE-refresh-token":1}`, headers...)
	do(server, "FAKE-method", "/FAKE-path", "", "Authorization", "Bearer FAKE.token.x", "X-Request-Id", "FAKE id")
	if strings.Contains(log.String(), "FAKE") || strings.Contains(log.String(), token) {
		t.Errorf("the log quotes requests:\n%s", log.String())
	}
	for _, want := range []string{"panic=string", "request_id=request-1", "status=400", "status=401", "user_id=7", "method=other"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in the log:\n%s", want, log.String())
		}
	}
}

// TestRequestID holds that an ID is taken from a trusted proxy, and from nobody else.
func TestRequestID(t *testing.T) {
	trusting, _ := newServer(t, &httpapi.Options{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}})
	other, _ := newServer(t, &httpapi.Options{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/32")}})
	for given, kept := range map[string]bool{
		"a": true, "A-b_c.9": true, strings.Repeat("x", 64): true,
		"": false, strings.Repeat("x", 65): false, "a b": false, "a\"b": false, "\u00e9": false,
	} {
		got := do(trusting, "GET", "/health", "", "X-Request-Id", given).Header().Get("X-Request-Id")
		if (got == given) != kept || got == "" {
			t.Errorf("request ID %q became %q", given, got)
		}
		if got := do(other, "GET", "/health", "", "X-Request-Id", given).Header().Get("X-Request-Id"); got == given || got == "" {
			t.Errorf("request ID %q of a client became %q", given, got)
		}
	}
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	server, _ := newServer(t, &httpapi.Options{Registerer: registry})
	do(server, "POST", route, validBody, bearer(tokenOf(t, 7))...)
	do(server, "DELETE", route+"/a-users-server", "", bearer(tokenOf(t, 7))...)
	do(server, "EVIL", "/a-users-path", "")
	const want = `
# HELP lockwood_http_requests_total Answered HTTP requests.
# TYPE lockwood_http_requests_total counter
lockwood_http_requests_total{method="DELETE",route="/mcp-oauth-credentials/:mcpServerId",status="204"} 1
lockwood_http_requests_total{method="POST",route="/mcp-oauth-credentials",status="200"} 1
lockwood_http_requests_total{method="other",route="other",status="401"} 1
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "lockwood_http_requests_total"); err != nil {
		t.Error(err)
	}
	if _, err := httpapi.New(newFake(), authSecret, &httpapi.Options{Registerer: registry}); err == nil {
		t.Error("two servers in one registry")
	}
}

func TestAdmin(t *testing.T) {
	var log bytes.Buffer
	server, _ := newServer(t, &httpapi.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	ready := httpapi.Readiness{Keys: map[string]string{"current": "missing"}}
	admin := server.Admin(httpapi.AdminOptions{
		Ready:    func(context.Context) httpapi.Readiness { return ready },
		Gatherer: prometheus.NewRegistry(),
	})
	check := func(path string, status int, body string) {
		t.Helper()
		if got := do(admin, "GET", path, ""); got.Code != status || got.Body.String() != body {
			t.Errorf("%s: %d %s, want %d %s", path, got.Code, got.Body, status, body)
		}
	}
	check("/livez", 200, `{"status":"live"}`)
	check("/metrics", 200, "")
	check("/readyz", 200, `{"status":"ready","state":"running","database":"ok","keys":{"current":"missing"}}`)
	server.SetState(httpapi.StateDraining)
	check("/readyz", 503, `{"status":"unready","state":"draining","database":"ok","keys":{"current":"missing"}}`)
	server.SetState(httpapi.StateRunning)
	ready = httpapi.Readiness{Database: errors.New("connection refused")}
	check("/readyz", 503, `{"status":"unready","state":"running","database":"unavailable"}`)
	check("/readyz", 503, `{"status":"unready","state":"running","database":"unavailable"}`)
	check("/livez", 200, `{"status":"live"}`)
	ready = httpapi.Readiness{}
	check("/readyz", 200, `{"status":"ready","state":"running","database":"ok"}`)
	if text := log.String(); strings.Count(text, "connection refused") != 1 || strings.Count(text, "answers again") != 1 {
		t.Errorf("the log does not say once why the database is not there, and once that it is: %s", text)
	}
	if got := do(admin, "GET", route, ""); got.Code != 404 {
		t.Errorf("a route of the main listener: %d", got.Code)
	}
}

// TestRequestHeads sends what an HTTP client would not. Nothing but a 4xx answers
// what is broken, and nothing is stored where two programs might disagree on what
// was sent.
func TestRequestHeads(t *testing.T) {
	server, fake := newServer(t, nil)
	addr := serve(t, server)
	chunks := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(validBody), validBody)
	length := fmt.Sprintf("Content-Length: %d\r\n", len(validBody))
	const chunked = "Transfer-Encoding: chunked\r\n"
	post := func(framing, body string) string {
		return "POST " + route + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n" +
			"Authorization: Bearer " + tokenOf(t, 7) + "\r\n" + framing + "\r\n" + body
	}
	for request, status := range map[string]int{
		post(length, validBody):                                                             200,
		post(chunked, chunks):                                                               200,
		post(length+"Expect: 100-continue\r\n", validBody):                                  200,
		post(length+chunked, chunks):                                                        400,
		post(chunked+length, chunks):                                                        400,
		post(length+length, validBody):                                                      400,
		post("Transfer-Encoding: gzip, chunked\r\n", chunks):                                400,
		post("Transfer-Encoding: identity\r\n", validBody):                                  400,
		post("Content-Length: -1\r\n", validBody):                                           400,
		post("Content-Length: 1_0\r\n", validBody):                                          400,
		post(chunked, "zz\r\n"+chunks):                                                      400,
		post(chunked, chunks[:40]):                                                          400,
		"GET /health HTTP/1.0\r\n\r\n":                                                      200,
		"GET http://x/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n":              200,
		"GET http://x?/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n":             401,
		"GET http://x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n":                     401,
		"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n":                        401,
		"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n":                                 400,
		"GET /health HTTP/2.0\r\nHost: x\r\n\r\n":                                           400,
		"GET /health HTTP/1.1\nHost: x\n\n":                                                 400,
		"GET /health HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n":                                400,
		"GET /health HTTP/1.1\r\nHost : x\r\n\r\n":                                          400,
		"GET /health HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 16<<10) + "\r\n\r\n": 431,
	} {
		fake.reset(nil)
		if got := send(t, addr, request); got != status || (fake.callCount() == 1) != (status == 200 && request[0] == 'P') {
			t.Errorf("%.400q: %d, want %d; %d deposits", request, got, status, fake.callCount())
		}
	}
}

// send sends a request and returns the status of the final response. It sends
// nothing more, so that the server sees the end of a request that is cut short.
func send(t *testing.T, addr, request string) int {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	for r := bufio.NewReader(conn); ; {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("%.100q: %v", request, err)
		}
		if resp.StatusCode >= 200 {
			_ = resp.Body.Close()
			return resp.StatusCode
		}
	}
}
