package httpapi_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/httpapi"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// get returns the status, the body and whether the connection stays open.
func get(t *testing.T, url string) (status int, body string, kept bool) {
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
	return resp.StatusCode, string(text), !resp.Close
}

func TestDrainingIsVisible(t *testing.T) {
	fake := newFake()
	server, err := httpapi.New(fake, authSecret, &httpapi.Options{Logger: quiet, DrainDelay: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if got := do(server, "GET", "/health", ""); got.Code != 503 || got.Body.String() != `{"state":"idle"}` {
		t.Errorf("before it serves: %d %s", got.Code, got.Body)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	health := "http://" + l.Addr().String() + "/health"
	if status, body, kept := get(t, health); status != 200 || body != `{"state":"running"}` || !kept {
		t.Errorf("while it serves: %d %s, kept open: %t", status, body, kept)
	}

	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- server.Shutdown(ctx) }()
	pgtest.Eventually(t, "draining", func() bool { return server.State() == httpapi.StateDraining })
	if status, body, kept := get(t, health); status != 200 || body != `{"state":"draining"}` || kept {
		t.Errorf("while it drains: %d %s, kept open: %t", status, body, kept)
	}

	cancel()
	<-stopped //nolint:errcheck // cutting off what is left is what this test asks for
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Serve = %v", err)
	}
	if got := do(server, "GET", "/health", ""); got.Code != 503 || got.Body.String() != `{"state":"stopped"}` {
		t.Errorf("after it served: %d %s", got.Code, got.Body)
	}
}

// slowCredentials holds up a deposit until it is released.
type slowCredentials struct {
	*fakeCredentials
	entered, release chan struct{}
}

func (s slowCredentials) Deposit(ctx context.Context, userID int64, d *credential.Deposit) error {
	close(s.entered)
	<-s.release
	return s.fakeCredentials.Deposit(ctx, userID, d)
}

func TestShutdownFinishesRequests(t *testing.T) {
	slow := slowCredentials{newFake(), make(chan struct{}), make(chan struct{})}
	server, err := httpapi.New(slow, authSecret, &httpapi.Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	addr := serve(t, server)
	answered := make(chan int, 1)
	go func() {
		r, _ := http.NewRequest(http.MethodPost, "http://"+addr+route, strings.NewReader(validBody))
		r.Header.Set("Authorization", "Bearer "+tokenOf(t, 7))
		r.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			answered <- 0
			return
		}
		_ = resp.Body.Close()
		answered <- resp.StatusCode
	}()
	<-slow.entered
	stopped := make(chan error, 1)
	go func() { stopped <- server.Shutdown(t.Context()) }()
	pgtest.Eventually(t, "the listener to close", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	close(slow.release)
	if status := <-answered; status != 200 {
		t.Errorf("the request in flight: %d", status)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// TestLargeBodyAnswer holds that a client that writes all before it reads gets to
// see why its body was refused.
func TestLargeBodyAnswer(t *testing.T) {
	server, _ := newServer(t, nil)
	addr := serve(t, server)
	for size, want := range map[int]map[string]int{
		1<<20 + 1: {tokenOf(t, 7): http.StatusRequestEntityTooLarge},
		4 << 20:   {tokenOf(t, 7): http.StatusRequestEntityTooLarge},
		256 << 10: {"no token": http.StatusUnauthorized},
	} {
		for token, status := range want {
			r, err := http.NewRequest(http.MethodPost, "http://"+addr+route, strings.NewReader(strings.Repeat(" ", size)))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+token)
			r.Header.Set("Content-Type", "application/json")
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != status {
				t.Errorf("%d bytes: %d, want %d", size, resp.StatusCode, status)
			}
		}
	}
}
