package client_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/client"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/lockwoodtest"
)

// shared is the one instance that the tests of a run use, each with a user of its own.
var shared struct {
	mu    sync.Mutex
	users int64
}

// newClient returns a client for a user that nobody else is.
func newClient(t *testing.T, i *lockwoodtest.Instance, opts *client.Options) *client.Client {
	t.Helper()
	shared.mu.Lock()
	shared.users++
	user := shared.users
	shared.mu.Unlock()
	token, err := client.SignedUserToken(lockwoodtest.AuthSecret, user)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(i.URL, token, opts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// deposit connects the user to a server of which the token endpoint does what does says.
func deposit(t *testing.T, c *client.Client, i *lockwoodtest.Instance, does, server string) {
	t.Helper()
	err := c.Deposit(t.Context(), &client.Deposit{
		MCPServerID: server, RefreshToken: "FAKE-rt-0", TokenEndpoint: i.TokenEndpoint + "/" + does + "/" + strings.ReplaceAll(t.Name(), "/", "-"),
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAgainstTheProgram(t *testing.T) {
	i := lockwoodtest.Start(t, "..")
	t.Run("a credential", func(t *testing.T) { aCredential(t, i) })
	t.Run("access tokens", func(t *testing.T) { accessTokens(t, i) })
	t.Run("states", func(t *testing.T) { states(t, i) })
	t.Run("retry", func(t *testing.T) { retries(t, i) })
	t.Run("transport", func(t *testing.T) { transports(t, i) })
	t.Run("concurrent", func(t *testing.T) { concurrent(t, i) })
}

func aCredential(t *testing.T, i *lockwoodtest.Instance) {
	c := newClient(t, i, nil)
	expires := time.Date(2030, 1, 2, 3, 4, 5, 678_000_000, time.UTC)
	full := client.Deposit{
		MCPServerID: "a/b %2F é", RefreshToken: "FAKE-rt", TokenEndpoint: i.TokenEndpoint, ClientID: "id", ClientSecret: "FAKE-secret",
		ClientSecretExpiresAt: expires, TokenEndpointAuthMethod: "client_secret_post", Scopes: "read write",
	}
	for _, d := range []*client.Deposit{&full, {MCPServerID: "z", RefreshToken: "FAKE-rt", TokenEndpoint: i.TokenEndpoint}} {
		if err := c.Deposit(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	list, err := c.List(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	got := list[0]
	if age := time.Since(got.CreatedAt); age < -time.Minute || age > time.Hour || got.UpdatedAt.IsZero() {
		t.Errorf("created at %v, updated at %v", got.CreatedAt, got.UpdatedAt)
	}
	if got.MCPServerID != full.MCPServerID || got.ClientID != "id" || !got.HasClientSecret || !got.ClientSecretExpiresAt.Equal(expires) ||
		got.TokenEndpoint != i.TokenEndpoint || got.TokenEndpointAuthMethod != "client_secret_post" || got.Scopes != "read write" {
		t.Errorf("%+v", got)
	}
	if bare := list[1]; bare.MCPServerID != "z" || bare.ClientID != "" || bare.HasClientSecret || !bare.ClientSecretExpiresAt.IsZero() {
		t.Errorf("%+v", bare)
	}
	for _, server := range []string{full.MCPServerID, full.MCPServerID, "z"} { // the second time there is none
		if err := c.Disconnect(t.Context(), server); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := c.List(t.Context()); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
}

func accessTokens(t *testing.T, i *lockwoodtest.Instance) {
	c := newClient(t, i, nil)
	deposit(t, c, i, "granted", "srv")
	before := time.Now()
	first, err := c.AccessToken(t.Context(), "srv", nil)
	if err != nil {
		t.Fatal(err)
	}
	if first.AccessToken != "FAKE-at-1" || first.Scope != "read" || first.Expiry.Before(before.Add(59*time.Minute)) || first.Expiry.After(time.Now().Add(time.Hour)) {
		t.Errorf("%q %q until %v", string(first.AccessToken), first.Scope, first.Expiry)
	}
	again, err := c.AccessToken(t.Context(), "srv", &client.Demand{MinValidity: 5 * time.Minute})
	if err != nil || again.AccessToken != first.AccessToken {
		t.Errorf("the stored token is not served: %v", err)
	}
	other, err := c.AccessToken(t.Context(), "srv", &client.Demand{Rejected: first.AccessToken})
	if err != nil || other.AccessToken != "FAKE-at-2" {
		t.Errorf("after a rejection: %v", err)
	}
	fromSource, err := c.TokenSource(t.Context(), "srv").Token()
	if err != nil || fromSource.AccessToken != "FAKE-at-2" || fromSource.Type() != "Bearer" || !fromSource.Valid() {
		t.Errorf("token source: %v", err)
	}
	deposit(t, c, i, "endless", "endless")
	if endless, err := c.AccessToken(t.Context(), "endless", nil); err != nil || !endless.Expiry.IsZero() {
		t.Errorf("without an end: %v", err)
	}
	if shown := fmt.Sprintf("%v %+v %#v", first, *first, &client.Deposit{RefreshToken: "FAKE-rt"}); strings.Contains(shown, "FAKE") {
		t.Errorf("formatting shows a token: %s", shown)
	}
}

// states holds that each state is an error of its own, and that none holds a token.
func states(t *testing.T, i *lockwoodtest.Instance) {
	c := newClient(t, i, &client.Options{MaxWait: -1})
	for does, want := range map[string]error{
		"dead": client.ErrNeedsReauth, "refused": client.ErrTokenEndpointRefused, "failed": client.ErrTokenEndpointFailed, "unavailable": client.ErrTokenEndpointUnavailable,
	} {
		deposit(t, c, i, does, does)
		_, err := c.AccessToken(t.Context(), does, nil)
		if _, sourceErr := c.TokenSource(t.Context(), does).Token(); !errors.Is(err, want) || !errors.Is(sourceErr, want) {
			t.Errorf("%s: %v, and %v from the source", does, err, sourceErr)
		}
		failed, ok := errors.AsType[*client.Error](err)
		if !ok || failed.RequestID == "" || failed.Status == 0 || strings.Contains(err.Error(), "FAKE") {
			t.Errorf("%s: %v", does, err)
		}
		if temporary := does == "failed" || does == "unavailable"; ok && failed.Temporary() != temporary {
			t.Errorf("%s: temporary is %t", does, failed.Temporary())
		}
	}
	if _, err := c.AccessToken(t.Context(), "none", nil); !errors.Is(err, client.ErrNeedsReauth) {
		t.Errorf("no credential: %v", err)
	}
	if _, err := c.AccessToken(t.Context(), "", nil); err == nil {
		t.Error("no server: no error")
	}
	if err := c.Disconnect(t.Context(), ""); err == nil {
		t.Error("disconnect without a server: no error")
	}
	err := c.Deposit(t.Context(), &client.Deposit{MCPServerID: "s", RefreshToken: "FAKE-rt", TokenEndpoint: "http://169.254.169.254/"})
	if failed, ok := errors.AsType[*client.Error](err); !errors.Is(err, client.ErrInvalidRequest) || !ok || !strings.Contains(failed.Message, "tokenEndpoint") || strings.Contains(err.Error(), "FAKE") {
		t.Errorf("a metadata service: %v", err)
	}
	stranger, err := client.New(i.URL, client.StaticUserToken("FAKE-user-token"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.List(t.Context()); !errors.Is(err, client.ErrUnauthorized) || strings.Contains(err.Error(), "FAKE") {
		t.Errorf("another token: %v", err)
	}
	elsewhere, err := client.New(i.URL+"/nowhere", client.StaticUserToken("FAKE-user-token"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := elsewhere.List(t.Context()); err == nil {
		t.Error("another URL: no error")
	}
}

// retries holds that a client waits for what Lockwood asks it to, once.
func retries(t *testing.T, i *lockwoodtest.Instance) {
	c := newClient(t, i, nil)
	deposit(t, c, i, "recovering", "srv")
	if token, err := c.AccessToken(t.Context(), "srv", nil); err != nil || token.AccessToken != "FAKE-at-2" {
		t.Errorf("after Retry-After: %v", err)
	}
	for _, want := range []error{nil, nil, client.ErrTooManyRequests} { // with a Retry-After of up to a minute
		token, err := c.AccessToken(t.Context(), "srv", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = c.AccessToken(t.Context(), "srv", &client.Demand{Rejected: token.AccessToken}); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
}

// concurrent holds that callers share one grant.
func concurrent(t *testing.T, i *lockwoodtest.Instance) {
	c := newClient(t, i, nil)
	deposit(t, c, i, "granted", "srv")
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if token, err := c.AccessToken(t.Context(), "srv", nil); err != nil || token.AccessToken != core.Secret("FAKE-at-1") {
				t.Errorf("%v", err)
			}
		})
	}
	all.Wait()
}

func TestNew(t *testing.T) {
	user := client.StaticUserToken("FAKE")
	for url, ok := range map[string]bool{
		"https://lockwood.example.com": true, "http://127.0.0.1:3400/": true, "https://example.com/lockwood": true,
		"": false, "lockwood.example.com": false, "ftp://x": false, "https://": false, "https://u:FAKE@x": false, "https://x?FAKE": false, "https://x#FAKE": false, "https://%zz": false,
	} {
		if _, err := client.New(url, user, nil); (err == nil) != ok || err != nil && strings.Contains(err.Error(), "FAKE") {
			t.Errorf("%s: %v", url, err)
		}
	}
	if _, err := client.New("https://x", nil, nil); err == nil {
		t.Error("no user: no error")
	}
	for _, id := range []int64{0, -1, 1 << 31} {
		if _, err := client.SignedUserToken("FAKE", id); err == nil {
			t.Errorf("user %d: no error", id)
		}
	}
	if _, err := client.SignedUserToken("", 1); err == nil {
		t.Error("no secret: no error")
	}
}

// roundTripper is a function as a transport.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
