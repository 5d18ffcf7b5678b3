package grant_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/access/grant"
)

// TestTheRevocation holds what is sent, byte by byte.
func TestTheRevocation(t *testing.T) {
	client, post, none := "c:1", "client_secret_post", "none"
	for name, test := range map[string]struct {
		request       grant.Request
		hint          string
		body, authorz string
	}{
		"public": {
			grant.Request{RefreshToken: "FAKE-rt +/=", ClientID: &client, AuthMethod: &none}, grant.HintRefreshToken,
			"token=FAKE-rt+%2B%2F%3D&token_type_hint=refresh_token&client_id=c%3A1", "",
		},
		"basic": {
			grant.Request{RefreshToken: "FAKE-rt", ClientID: &client, ClientSecret: secret("FAKE-cs")}, grant.HintRefreshToken,
			"token=FAKE-rt&token_type_hint=refresh_token", "Basic YyUzQTE6RkFLRS1jcw==",
		},
		"post": {
			grant.Request{RefreshToken: "FAKE-at", ClientID: &client, ClientSecret: secret("FAKE-cs"), AuthMethod: &post}, grant.HintAccessToken,
			"token=FAKE-at&token_type_hint=access_token&client_id=c%3A1&client_secret=FAKE-cs", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var method, body, kind, authorz string
			s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				text, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				method, body, kind, authorz = r.Method, string(text), r.Header.Get("Content-Type"), r.Header.Get("Authorization")
			}))
			defer s.Close()
			err := grant.NewClient(grant.Options{Endpoints: local}).Revoke(t.Context(), &test.request, test.hint, s.URL+"/revoke")
			if err != nil || method != http.MethodPost || kind != "application/x-www-form-urlencoded" || body != test.body || authorz != test.authorz {
				t.Errorf("%v: %s %s %q %q, want %q %q", err, method, kind, body, authorz, test.body, test.authorz)
			}
		})
	}
}

func TestWhatARevocationAnswers(t *testing.T) {
	for status, want := range map[int]error{
		200: nil, 204: nil, 302: grant.ErrRevocationRefused, 400: grant.ErrRevocationRefused, 401: grant.ErrRevocationRefused, 404: grant.ErrRevocationRefused,
		408: grant.ErrRevocationFailed, 429: grant.ErrRevocationFailed, 500: grant.ErrRevocationFailed, 503: grant.ErrRevocationFailed,
	} {
		url, n := answering(t, status, http.Header{"Location": {"/elsewhere"}}, `{"error":"hidden"}`)
		err := grant.NewClient(grant.Options{Endpoints: local}).Revoke(t.Context(), &grant.Request{RefreshToken: "FAKE-rt"}, grant.HintRefreshToken, url)
		if !errors.Is(err, want) || n.Load() != 1 || err != nil && (strings.Contains(err.Error(), "FAKE") || strings.Contains(err.Error(), "hidden")) {
			t.Errorf("status %d: %v, want %v, after %d requests", status, err, want, n.Load())
		}
	}
	// Where it leads, and whether it answers.
	strict := grant.NewClient(grant.Options{})
	for _, url := range []string{"https://169.254.169.254/revoke", "https://localhost/revoke", "http://idp.example.com/revoke", "%"} {
		if err := strict.Revoke(t.Context(), &grant.Request{RefreshToken: "FAKE-rt"}, grant.HintRefreshToken, url); !errors.Is(err, grant.ErrRevocationRefused) {
			t.Errorf("%s: %v", url, err)
		}
	}
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else nobody sees the client leave
		<-r.Context().Done()
	}))
	defer silent.Close()
	c := grant.NewClient(grant.Options{Endpoints: local, Timeout: 50 * time.Millisecond})
	if err := c.Revoke(t.Context(), &grant.Request{RefreshToken: "FAKE-rt"}, grant.HintRefreshToken, silent.URL); !errors.Is(err, grant.ErrRevocationFailed) {
		t.Errorf("a server that does not answer: %v", err)
	}
}
