// Package lockwoodtest runs the built program for the tests of its clients, with a token
// endpoint that does what its path says. The clients are tested against the program and
// not against a double, because what they promise is that they fit it; and the clients in
// other languages see the same instance as the one in Go.
package lockwoodtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/lockwood-kms/lockwood/internal/buildtest"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// AuthSecret is what user tokens are signed with. It is made up, as the key is.
const (
	AuthSecret = "test-auth-secret-0123456789-0123456789-not-real"
	key        = "4f6a1c9e0b7d2835f1e6c4a8d3907b5e62ad18f4c09b7e3d5a81f2c6e4b09d73"
)

// Instance is a running program with a database of its own.
type Instance struct {
	// URL is the main listener's.
	URL string
	// TokenEndpoint is that of the token endpoint without a path; see Endpoint.
	TokenEndpoint string

	log  *lockedBuffer
	gone chan struct{}
	cmd  *exec.Cmd
}

// Start builds the program of the module in dir and runs it, with env besides what it
// needs, until the test ends. It fails the test if the program's log then holds a token
// of the endpoint's or of a deposit's: both begin with "FAKE".
func Start(tb testing.TB, dir string, env ...string) *Instance {
	tb.Helper()
	bin := tb.TempDir()
	if err := buildtest.Lockwood(dir, bin); err != nil {
		tb.Fatal(err)
	}
	endpoint := httptest.NewServer(&Endpoint{})
	tb.Cleanup(endpoint.Close)
	i := &Instance{TokenEndpoint: endpoint.URL, log: &lockedBuffer{}, gone: make(chan struct{})}
	i.cmd = exec.CommandContext(context.Background(), filepath.Join(bin, "lockwood"), "serve")
	i.cmd.Dir = tb.TempDir()
	i.cmd.Stdout, i.cmd.Stderr = i.log, i.log
	i.cmd.Env = append([]string{
		"HTTP_HOST=127.0.0.1", "HTTP_PORT=0", "ADMIN_ADDR=127.0.0.1:0", "LOG_LEVEL=debug", "LOG_FORMAT=json", "DRAIN_GRACE=0s",
		"FOREST_AUTH_SECRET=" + AuthSecret, "FOREST_EXECUTOR_ENCRYPTION_KEY=" + key,
		"FOREST_EXECUTOR_ALLOW_LOCAL_TOKEN_ENDPOINTS=true", "DATABASE_URL=sqlite:" + filepath.Join(i.cmd.Dir, "vault.db"),
	}, env...)
	if err := i.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		_ = i.cmd.Wait()
		close(i.gone)
	}()
	tb.Cleanup(func() { i.end(tb) })
	admin := ""
	pgtest.Eventually(tb, "lockwood listens", func() bool {
		select {
		case <-i.gone:
			tb.Fatalf("lockwood ended:\n%s", i.log)
		default:
		}
		i.URL, admin = i.log.addresses()
		return admin != ""
	})
	pgtest.Eventually(tb, "lockwood is ready", func() bool {
		resp, err := http.Get(admin + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return i
}

func (i *Instance) end(tb testing.TB) {
	_ = i.cmd.Process.Signal(os.Interrupt)
	<-i.gone
	if log := i.log.String(); strings.Contains(log, "FAKE") {
		tb.Errorf("lockwood's log holds a token:\n%s", log)
	}
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// addresses returns the URLs of the listeners, or "" if they are not logged yet.
func (b *lockedBuffer) addresses() (main, admin string) {
	for line := range strings.Lines(b.String()) {
		var entry struct {
			Msg     string `json:"msg"`
			Address string `json:"address"`
			Admin   string `json:"admin_address"`
		}
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "listening" {
			return "http://" + entry.Address, "http://" + entry.Admin
		}
	}
	return "", ""
}

// Endpoint is a token endpoint. The first part of its path says what it does, and what
// follows keeps one test's grants apart from another's:
//
//	/granted      an access token FAKE-at-N for an hour, and another refresh token; N
//	              counts the grants of the path
//	/endless      the same, without expires_in
//	/dead         invalid_grant
//	/refused      invalid_scope
//	/failed       200 without an access token
//	/unavailable  503
//	/recovering   503 at first, and then as /granted
type Endpoint struct {
	mu     sync.Mutex
	grants map[string]int
}

// ServeHTTP implements http.Handler.
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.grants == nil {
		e.grants = make(map[string]int)
	}
	e.grants[r.URL.Path]++
	n := e.grants[r.URL.Path]
	does, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if does == "recovering" {
		does = "granted"
		if n == 1 {
			does = "unavailable"
		}
	}
	token := fmt.Sprintf(`"access_token":"FAKE-at-%d","token_type":"Bearer","scope":"read","refresh_token":"FAKE-rt-%d"`, n, n)
	answer, ok := map[string]struct {
		status int
		body   string
	}{
		"granted":     {http.StatusOK, `{` + token + `,"expires_in":3600}`},
		"endless":     {http.StatusOK, `{` + token + `}`},
		"dead":        {http.StatusBadRequest, `{"error":"invalid_grant"}`},
		"refused":     {http.StatusBadRequest, `{"error":"invalid_scope"}`},
		"failed":      {http.StatusOK, `{}`},
		"unavailable": {http.StatusServiceUnavailable, `{}`},
	}[does]
	if !ok {
		answer.status = http.StatusNotFound
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(answer.status)
	_, _ = io.WriteString(w, answer.body)
}
