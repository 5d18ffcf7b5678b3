package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/ncruces/go-sqlite3/driver"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/internal/tmptest"
)

// The configuration of the tests. Every secret in it is made up.
const (
	testAuthSecret = "test-auth-secret-0123456789-0123456789-not-real"
	testKey        = "4f6a1c9e0b7d2835f1e6c4a8d3907b5e62ad18f4c09b7e3d5a81f2c6e4b09d73"
	otherKey       = "9c27e51d4b80fa36c7d2918e5f04ab63708d1ce9b25f4a6830e7d9c14b6a25f8"
)

// runMain makes the test binary be lockwood.
const runMain = "LOCKWOOD_TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	beThief()
	if os.Getenv(runMain) != "" {
		main()
	}
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("10") // what runs in parallel here waits for timers, not for processors
	}
	code := m.Run()
	_ = os.RemoveAll(pluginBuild.dir)
	os.Exit(code)
}

// lockwood returns a command that runs lockwood in a directory of its own with
// nothing but env in its environment.
func lockwood(ctx context.Context, t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Dir = t.TempDir()
	// Under -race a process sleeps for a second before it ends.
	cmd.Env = append([]string{runMain + "=1", "GODEBUG=" + os.Getenv("GODEBUG"), "GORACE=atexit_sleep_ms=0"}, env...)
	return cmd
}

// result is what a command left.
type result struct {
	stdout, stderr string
	code           int
}

func (r result) json(t *testing.T, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.stdout), into); err != nil {
		t.Fatalf("the output is not JSON: %v\n%s\n%s", err, r.stdout, r.stderr)
	}
}

// do runs a command to its end.
func do(t *testing.T, env []string, args ...string) result {
	t.Helper()
	return finish(t, lockwood(t.Context(), t, env, args...), "")
}

// finish runs cmd, whose standard input is text, to its end.
func finish(t *testing.T, cmd *exec.Cmd, text string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(text), &stdout, &stderr
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatalf("running %v: %v", cmd.Args, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// server is a running "lockwood serve".
type server struct {
	cmd         *exec.Cmd
	log         *output
	base, admin string
	secret      string
	exited      chan struct{} // closed once the process is gone
}

// output collects what a process prints while others read it.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// serving finds the log line that says where the service listens.
func (o *output) serving() (address, admin string, ok bool) {
	for line := range strings.Lines(o.String()) {
		var entry struct {
			Msg     string `json:"msg"`
			Address string `json:"address"`
			Admin   string `json:"admin_address"`
		}
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "listening" {
			return entry.Address, entry.Admin, true
		}
	}
	return "", "", false
}

// serve starts a service on free ports, and waits until it listens. It is killed
// with the test, if it still runs.
func serve(t *testing.T, env []string, args ...string) *server {
	t.Helper()
	s := launch(t, lockwood(context.Background(), t, append([]string{
		"HTTP_HOST=127.0.0.1", "HTTP_PORT=0", "ADMIN_ADDR=127.0.0.1:0", "LOG_LEVEL=debug", "LOG_FORMAT=json",
	}, env...), append([]string{"serve"}, args...)...))
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "FOREST_AUTH_SECRET="); ok {
			s.secret = v
		}
	}
	return s
}

// launch starts a service that logs JSON and waits until it listens.
func launch(t *testing.T, cmd *exec.Cmd) *server {
	t.Helper()
	s := &server{cmd: cmd, log: &output{}, secret: testAuthSecret, exited: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.kill() })
	go func() {
		_ = s.cmd.Wait()
		close(s.exited)
	}()
	pgtest.Eventually(t, "the service listens", func() bool {
		select {
		case <-s.exited:
			t.Fatalf("the service ended:\n%s", s.log)
		default:
		}
		address, admin, ok := s.log.serving()
		s.base, s.admin = "http://"+address, "http://"+admin
		return ok
	})
	return s
}

func (s *server) kill() {
	_ = s.cmd.Cancel()
	<-s.exited
}

// stop ends the service as an operator does, so that its row goes too.
func (s *server) stop(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-s.exited
}

// ready waits until the service answers that it is.
func (s *server) ready(t *testing.T) *server {
	t.Helper()
	pgtest.Eventually(t, "the service is ready", func() bool {
		resp, err := http.Get(s.admin + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return s
}

// answer is an HTTP response.
type answer struct {
	status int
	body   string
	header http.Header
}

// call makes a request as user and returns status, or 0 if there was no answer.
func (s *server) call(t *testing.T, user int64, method, path, body string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+tokenFor(t, s.secret, user))
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}
	}
	return answer{resp.StatusCode, string(text), resp.Header}
}

func (s *server) deposit(t *testing.T, user int64, server, token string) answer {
	t.Helper()
	return s.call(t, user, "POST", "/mcp-oauth-credentials", depositBody(server, token))
}

func depositBody(server, token string) string {
	return fmt.Sprintf(`{"mcpServerId":%q,"refreshToken":%q,"tokenEndpoint":"https://idp.example.com/token"}`, server, token)
}

func tokenFor(t *testing.T, secret string, user int64) string {
	t.Helper()
	claims := jwt.MapClaims{"id": user, "exp": time.Now().Add(time.Hour).Unix()}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// testDatabase is an empty database of either kind, and the plain SQL connection
// of somebody who can write to it.
type testDatabase struct {
	env    []string // the configuration of a service on it, keys included
	db     *sql.DB
	table  string                    // the credential table
	bind   func(query string) string // '?' to the dialect's parameters
	schema string                    // prefix of Lockwood's tables
	pg     *pgtest.Cluster           // nil for SQLite
	url    string
}

// eachDatabase runs f on an empty SQLite file and on an empty PostgreSQL database.
func eachDatabase(t *testing.T, f func(t *testing.T, d *testDatabase)) {
	t.Run("sqlite", func(t *testing.T) { f(t, sqliteDatabase(t)) })
	t.Run("postgres", func(t *testing.T) { f(t, postgresDatabase(t, pgtest.Shared(t))) })
}

func keysOf(databaseURL string) []string {
	return []string{"FOREST_AUTH_SECRET=" + testAuthSecret, "FOREST_EXECUTOR_ENCRYPTION_KEY=" + testKey, "DATABASE_URL=" + databaseURL}
}

func sqliteDatabase(t *testing.T) *testDatabase {
	path := filepath.Join(tmptest.Dir(t), "vault.db")
	db, err := sql.Open("sqlite3", "file:"+path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return &testDatabase{env: keysOf("sqlite:" + path), url: "sqlite:" + path, db: db, table: "ai_mcp_oauth_credentials", bind: func(q string) string { return q }}
}

func postgresDatabase(t *testing.T, c *pgtest.Cluster) *testDatabase {
	url := c.NewDatabase(t)
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	bind := func(q string) string {
		for n := 1; strings.Contains(q, "?"); n++ {
			q = strings.Replace(q, "?", fmt.Sprintf("$%d", n), 1)
		}
		return q
	}
	return &testDatabase{
		env: append(keysOf(url), "DATABASE_SSL=false"), url: url, db: db, pg: c,
		table: "forest.ai_mcp_oauth_credentials", schema: "forest.", bind: bind,
	}
}

// with returns the environment with variables replaced or, as "NAME", removed.
func (d *testDatabase) with(changes ...string) []string {
	env := append([]string(nil), d.env...)
	for _, change := range changes {
		name, _, set := strings.Cut(change, "=")
		kept := env[:0]
		for _, e := range env {
			if !strings.HasPrefix(e, name+"=") {
				kept = append(kept, e)
			}
		}
		if env = kept; set {
			env = append(env, change)
		}
	}
	return env
}

func (d *testDatabase) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := d.db.ExecContext(t.Context(), d.bind(query), args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func (d *testDatabase) count(t *testing.T, from string) (n int) {
	t.Helper()
	if err := d.db.QueryRowContext(t.Context(), "SELECT count(*) FROM "+from).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// record returns the refresh token's record of (user, server).
func (d *testDatabase) record(t *testing.T, user int64, server string) (record []byte) {
	t.Helper()
	row := d.db.QueryRowContext(t.Context(), d.bind("SELECT refresh_token_enc FROM "+d.table+" WHERE user_id = ? AND mcp_server_id = ?"), user, server)
	if err := row.Scan(&record); err != nil {
		t.Fatal(err)
	}
	return record
}
