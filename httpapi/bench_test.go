package httpapi_test

import (
	"context"
	"encoding/json"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/httpapi"
)

// noCredentials does nothing, so that only the service is measured.
type noCredentials struct{}

func (noCredentials) Deposit(context.Context, int64, *credential.Deposit) error { return nil }
func (noCredentials) Disconnect(context.Context, int64, string) error           { return nil }
func (noCredentials) List(context.Context, int64) iter.Seq2[[]credential.Listed, error] {
	return func(func([]credential.Listed, error) bool) {}
}

const benchSecret = "bench-auth-secret-not-real-0123456789"

func benchRequest(b *testing.B) func() *http.Request {
	b.Helper()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"id": 7, "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(), "email": "someone@example.com",
	}).SignedString([]byte(benchSecret))
	if err != nil {
		b.Fatal(err)
	}
	body := `{"mcpServerId":"srv-1","refreshToken":"` + strings.Repeat("r", 1024) +
		`","tokenEndpoint":"https://idp.example.com/token","clientId":"client-1","clientSecret":"FAKE-client-secret"}`
	return func() *http.Request {
		r := httptest.NewRequest(http.MethodPost, "/mcp-oauth-credentials", strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", "application/json")
		return r
	}
}

// BenchmarkDeposit measures a deposit with everything but key and database:
// token, body, schema, endpoint guard, metrics and log.
func BenchmarkDeposit(b *testing.B) {
	server, err := httpapi.New(noCredentials{}, benchSecret, &httpapi.Options{
		Logger: slog.New(httpapi.LogHandler(slog.NewJSONHandler(io.Discard, nil))), //nolint:sloglint // a handler that drops records would drop their cost
	})
	if err != nil {
		b.Fatal(err)
	}
	benchmark(b, server)
}

// BenchmarkMinimal measures what a handler cannot do without: to decode the same
// body with encoding/json.
func BenchmarkMinimal(b *testing.B) {
	benchmark(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var d struct {
			MCPServerID, RefreshToken, TokenEndpoint, ClientID, ClientSecret string
		}
		if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"stored":true}`)
	}))
}

func benchmark(b *testing.B, h http.Handler) {
	request := benchRequest(b)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		r, w := request(), httptest.NewRecorder()
		b.StartTimer()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatal(w.Code, w.Body)
		}
	}
}
