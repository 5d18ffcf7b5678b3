package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/client"
	"github.com/lockwood-kms/lockwood/core"
)

const tokenJSON = `{"accessToken":"FAKE-at","tokenType":"Bearer","expiresIn":null,"expiresAt":null,"scope":null}`

// answer is one of a Lockwood that is scripted.
type answer struct {
	status     int
	body       string
	retryAfter string
}

// scripted returns a client of a Lockwood with these answers, and how many it has given.
func scripted(t *testing.T, opts client.Options, answers ...answer) (*client.Client, *int) {
	t.Helper()
	given := 0
	opts.Transport = roundTripper(func(*http.Request) (*http.Response, error) {
		a := answers[given]
		given++
		return &http.Response{
			StatusCode: a.status, Body: io.NopCloser(strings.NewReader(a.body)),
			Header: http.Header{"Retry-After": {a.retryAfter}, "X-Request-Id": {"r-1"}},
		}, nil
	})
	c, err := client.New("https://lockwood.example.com/", client.StaticUserToken("FAKE-user"), &opts)
	if err != nil {
		t.Fatal(err)
	}
	return c, &given
}

// TestRetryAfter holds that a client comes back when it is told to, once, and not if that
// is too long.
func TestRetryAfter(t *testing.T) {
	busy := answer{503, `{"code":"server_busy"}`, "3"}
	ok := answer{200, tokenJSON, ""}
	for name, c := range map[string]struct {
		opts    client.Options
		answers []answer
		given   int
		took    time.Duration
		err     error
	}{
		"once":                 {client.Options{}, []answer{busy, ok}, 2, 3 * time.Second, nil},
		"not twice":            {client.Options{}, []answer{busy, busy, ok}, 2, 3 * time.Second, client.ErrServerBusy},
		"a 429":                {client.Options{}, []answer{{429, `{"error":"x"}`, "1"}, ok}, 2, time.Second, nil},
		"a date":               {client.Options{}, []answer{{503, `{"code":"server_busy"}`, "Sat, 01 Jan 2000 00:00:05 GMT"}, ok}, 2, 5 * time.Second, nil},
		"longer than it waits": {client.Options{}, []answer{{503, `{"code":"server_busy"}`, "11"}, ok}, 1, 0, client.ErrServerBusy},
		"as long as it is set": {client.Options{MaxWait: time.Minute}, []answer{{503, `{"code":"server_busy"}`, "60"}, ok}, 2, time.Minute, nil},
		"never":                {client.Options{MaxWait: -1}, []answer{busy, ok}, 1, 0, client.ErrServerBusy},
		"without Retry-After":  {client.Options{}, []answer{{502, `{"code":"token_endpoint_failed"}`, ""}, ok}, 1, 0, client.ErrTokenEndpointFailed},
		"what does not pass":   {client.Options{}, []answer{{503, `{"code":"executor_encryption_key_missing"}`, "1"}, ok}, 1, 0, client.ErrKeyMissing},
		"a refusal":            {client.Options{}, []answer{{400, `{"code":"token_endpoint_refused"}`, "1"}, ok}, 1, 0, client.ErrTokenEndpointRefused},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				asking, given := scripted(t, c.opts, c.answers...)
				_, err := asking.AccessToken(t.Context(), "srv", nil)
				if took := time.Since(began); !errors.Is(err, c.err) || took != c.took || *given != c.given {
					t.Errorf("%v after %v and %d answers", err, took, *given)
				}
			})
		})
	}
}

// TestACallerThatLeaves holds that a wait ends with the caller's context.
func TestACallerThatLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c, given := scripted(t, client.Options{}, answer{503, `{"code":"server_busy"}`, "3"})
		_, err := c.AccessToken(ctx, "srv", nil)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, client.ErrServerBusy) || *given != 1 {
			t.Errorf("%v after %d answers", err, *given)
		}
	})
}

// TestTimeout holds that a Lockwood that does not answer is given up.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		hangs := roundTripper(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		c, err := client.New("https://lockwood.example.com", client.StaticUserToken("FAKE"), &client.Options{Transport: hangs})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.List(t.Context()); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 30*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// TestOtherAnswers holds what becomes of answers that are not Lockwood's, and that no
// error repeats one.
func TestOtherAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer answer
		err    error
	}{
		"a proxy's 502":       {answer{502, "<html>FAKE</html>", ""}, client.ErrUnexpected},
		"a proxy's 504":       {answer{504, "FAKE", ""}, client.ErrUnexpected},
		"a defect":            {answer{500, `{"error":"Internal server error"}`, ""}, client.ErrUnexpected},
		"an unknown code":     {answer{503, `{"code":"FAKE"}`, ""}, client.ErrUnexpected},
		"no such route":       {answer{404, "Not Found", ""}, client.ErrNoRoute},
		"a redirection":       {answer{302, "FAKE", ""}, client.ErrUnexpected},
		"a page":              {answer{200, "<html>FAKE</html>", ""}, nil},
		"no token":            {answer{200, `{"accessToken":"","tokenType":"Bearer"}`, ""}, nil},
		"a token of a kind":   {answer{200, `{"accessToken":"FAKE","tokenType":"MAC"}`, ""}, nil},
		"a token that is not": {answer{200, `{"accessToken":["FAKE"],"tokenType":"Bearer"}`, ""}, nil},
	} {
		asking, _ := scripted(t, client.Options{}, c.answer)
		_, err := asking.AccessToken(t.Context(), "srv", nil)
		if err == nil || strings.Contains(err.Error(), "FAKE") || c.err != nil && !errors.Is(err, c.err) {
			t.Errorf("%s: %v", name, err)
		}
		if failed, ok := errors.AsType[*client.Error](err); ok != (c.err != nil) || ok && failed.RequestID != "r-1" {
			t.Errorf("%s: %v", name, err)
		}
	}
	failing := errors.New("no user today")
	c, err := client.New("https://lockwood.example.com", func(context.Context) (core.Secret, error) { return "", failing }, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.List(t.Context()); !errors.Is(err, failing) {
		t.Errorf("without a user token: %v", err)
	}
}

// TestYearsBeyond9999 holds that a date that JavaScript writes with a sign is read.
func TestYearsBeyond9999(t *testing.T) {
	c, _ := scripted(t, client.Options{}, answer{200, `{"credentials":[{"mcpServerId":"s","clientSecretExpiresAt":"+012344-02-29T03:04:05.006Z"}]}`, ""},
		answer{200, `{"credentials":[{"mcpServerId":"s","clientSecretExpiresAt":"+01234x-01-02T03:04:05.006Z"}]}`, ""})
	list, err := c.List(t.Context())
	if want := time.Date(12344, 2, 29, 3, 4, 5, 6_000_000, time.UTC); err != nil || len(list) != 1 || !list[0].ClientSecretExpiresAt.Equal(want) {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := c.List(t.Context()); err == nil {
		t.Error("a date that is none: no error")
	}
}
