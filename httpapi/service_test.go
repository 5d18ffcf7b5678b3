package httpapi_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/httpapi"
)

const (
	authSecret = "FAKE-auth-secret-not-real-0123456789"
	route      = "/mcp-oauth-credentials"
	validBody  = `{"mcpServerId":"srv-1","refreshToken":"FAKE-refresh-token","tokenEndpoint":"https://idp.example.com/token"}`
	validForm  = "mcpServerId=srv-1&refreshToken=FAKE-refresh-token&tokenEndpoint=https%3A%2F%2Fidp.example.com%2Ftoken"
)

// quiet is for tests that do not look at the log.
var quiet = slog.New(slog.DiscardHandler)

// sign returns a token with the claims.
func sign(t testing.TB, claims jwt.MapClaims) string {
	t.Helper()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(authSecret))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// tokenOf returns a valid token of the user.
func tokenOf(t testing.TB, userID int) string {
	return sign(t, jwt.MapClaims{"id": userID, "exp": time.Now().Add(time.Hour).Unix()})
}

// newServer returns a running server in front of a fake.
func newServer(t testing.TB, opts *httpapi.Options) (*httpapi.Server, *fakeCredentials) {
	t.Helper()
	if opts == nil {
		opts = &httpapi.Options{}
	}
	if opts.Logger == nil {
		opts.Logger = quiet
	}
	fake := newFake()
	server, err := httpapi.New(fake, core.Secret(authSecret), opts)
	if err != nil {
		t.Fatal(err)
	}
	server.SetState(httpapi.StateRunning)
	return server, fake
}

// do sends a request to the handler; headers are pairs of name and value. The exchange
// has to be in docs/openapi.yaml.
func do(h http.Handler, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	return serveOne(h, holds, method, path, body, headers)
}

// doAnything is do for an exchange that need not be there.
func doAnything(h http.Handler, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	return serveOne(h, nil, method, path, body, headers)
}

// serveOne sends a request to the handler, and has the exchange looked at.
func serveOne(h http.Handler, look func(http.Handler, *http.Request, string, *httptest.ResponseRecorder), method, path, body string, headers []string) *httptest.ResponseRecorder {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, path, reader)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if look != nil {
		look(h, r, body, w)
	}
	return w
}

// bearer returns the headers of a JSON request with the token.
func bearer(token string) []string {
	return []string{"Authorization", "Bearer " + token, "Content-Type", "application/json"}
}
