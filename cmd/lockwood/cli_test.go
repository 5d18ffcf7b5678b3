package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

func TestKeyGeneratePrintsAFreshKey(t *testing.T) {
	t.Parallel()
	first, second := do(t, nil, "key", "generate"), do(t, nil, "key", "generate")
	value, err := hex.DecodeString(strings.TrimSpace(first.stdout))
	if err != nil || len(value) != 32 || first.stdout == second.stdout || first.code != exitOK {
		t.Errorf("printed %q, then %q", first.stdout, second.stdout)
	}
	var printed struct{ Key string }
	r := do(t, nil, "key", "generate", "--json")
	if r.json(t, &printed); r.code != exitOK || len(printed.Key) != 64 || printed.Key == strings.TrimSpace(first.stdout) {
		t.Errorf("as JSON: %d %s", r.code, r.stdout)
	}
	d := sqliteDatabase(t)
	serve(t, d.with("FOREST_EXECUTOR_ENCRYPTION_KEY="+strings.TrimSpace(first.stdout))).ready(t)
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	none := filepath.Join(t.TempDir(), "none.db")
	tests := map[string]struct {
		env  []string
		args []string
		want int
	}{
		"version":              {nil, []string{"version", "--json"}, exitOK},
		"no such command":      {nil, []string{"frobnicate"}, exitUsage},
		"no such flag":         {nil, []string{"version", "--frobnicate"}, exitUsage},
		"an argument too many": {nil, []string{"key", "generate", "now"}, exitUsage},
		"half a command":       {nil, []string{"key"}, exitUsage},
		"no plugin to pin":     {nil, []string{"plugin", "pin"}, exitUsage},
		"no configuration":     {nil, []string{"serve"}, exitUsage},
		"a weak key":           {d.with("FOREST_EXECUTOR_ENCRYPTION_KEY=password"), []string{"serve"}, exitUsage},
		"the auth secret":      {d.with("FOREST_EXECUTOR_ENCRYPTION_KEY=" + testAuthSecret), []string{"serve"}, exitUsage},
		"an unknown provider":  {d.with("FOREST_EXECUTOR_KEY_PROVIDER=awskms:///alias/x"), []string{"serve"}, exitUsage},
		"a port in use":        {d.with("HTTP_PORT=" + busyPort(t)), []string{"serve"}, exitUsage},
		"no database file":     {d.with("DATABASE_URL=sqlite:" + none), []string{"key", "status"}, exitUsage},
		"no database server":   {d.with("DATABASE_URL=postgres://u@127.0.0.1:1/x?sslmode=disable"), []string{"credentials", "verify"}, exitUnavailable},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := do(t, append(test.env, "HTTP_HOST=127.0.0.1"), test.args...)
			if r.code != test.want {
				t.Errorf("exit code %d, want %d\n%s%s", r.code, test.want, r.stdout, r.stderr)
			}
			if test.want != exitOK && strings.TrimSpace(r.stderr) == "" {
				t.Error("nothing says what is wrong")
			}
		})
	}
	if _, err := os.Stat(none); err == nil {
		t.Error("looking at a database file made it")
	}
}

func busyPort(t *testing.T) string {
	s := serve(t, sqliteDatabase(t).env)
	return s.base[strings.LastIndexByte(s.base, ':')+1:]
}

func TestAllMistakesAreToldAtOnce(t *testing.T) {
	t.Parallel()
	r := do(t, []string{"FOREST_EXECUTOR_ENCRYPTION_KEY=hunter2", "HTTP_PORT=many", "DATABASE_URL=mysql://hunter2@h/d"}, "serve")
	for _, want := range []string{"FOREST_AUTH_SECRET", "FOREST_EXECUTOR_ENCRYPTION_KEY", "HTTP_PORT", "DATABASE_URL", "openssl rand -hex 32"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("%s is not named:\n%s", want, r.stderr)
		}
	}
	if strings.Contains(r.stderr, "hunter2") {
		t.Errorf("a value shows:\n%s", r.stderr)
	}
}

func TestWhiteSpaceAroundTheKeyIsTheOperatorsToJudge(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	r := do(t, d.with("FOREST_EXECUTOR_ENCRYPTION_KEY="+testKey+"\n"), "serve")
	ids := regexp.MustCompile(`envkey:[0-9a-f]{16}`).FindAllString(r.stderr, -1)
	distinct := map[string]bool{}
	for _, id := range ids {
		distinct[id] = true
	}
	if r.code != exitUsage || len(distinct) != 2 || strings.Contains(r.stderr, testKey) {
		t.Errorf("exit code %d\n%s", r.code, r.stderr)
	}
	s := serve(t, d.with("FOREST_EXECUTOR_ENCRYPTION_KEY="+testKey+"\n", "FOREST_EXECUTOR_ALLOW_WEAK_KEY=true")).ready(t)
	if a := s.deposit(t, 1, "s", "FAKE"); a.status != 200 {
		t.Errorf("deposit: %d %s", a.status, a.body)
	}
	if report := do(t, d.env, "credentials", "verify"); report.code != exitFound {
		t.Errorf("the trimmed key opens what the exact one sealed: exit code %d", report.code)
	}
}

// A file of variables that was named has to be there, and to be read.
func TestEnvFileThatIsNamed(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	none := filepath.Join(t.TempDir(), "none")
	for _, args := range [][]string{{"serve"}, {"key", "status"}, {"recover", "--drill"}} {
		r := do(t, d.env, append(args, "--env-file", none)...)
		if r.code != exitUsage || !strings.Contains(r.stderr, none+": the file does not exist") {
			t.Errorf("%v: exit code %d, %s", args, r.code, r.stderr)
		}
	}
	var findings []finding
	r := do(t, d.env, "doctor", "--json", "--env-file", none)
	if r.json(t, &findings); r.code != exitFound || !strings.Contains(findings[0].Detail, none+": the file does not exist") {
		t.Errorf("doctor: exit code %d, %+v", r.code, findings)
	}
	bad := filepath.Join(t.TempDir(), "bad.env")
	if err := os.WriteFile(bad, []byte("LOG_LEVEL=info\nHUNTER2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"serve"}, {"serve", "--dev"}} {
		r := do(t, nil, append(args, "--env-file", bad)...)
		if r.code != exitUsage || !strings.Contains(r.stderr, bad+":2:8: the line has no =") || strings.Contains(r.stderr, "HUNTER2") {
			t.Errorf("%v: exit code %d, %s", args, r.code, r.stderr)
		}
	}
}

func TestDevStartsWithNothing(t *testing.T) {
	t.Parallel()
	cmd := lockwood(context.Background(), t, []string{"HTTP_PORT=0", "ADMIN_ADDR=127.0.0.1:0"}, "serve", "--dev")
	s := launch(t, cmd)
	pgtest.Eventually(t, "the curl lines are printed", func() bool { return strings.Contains(s.log.String(), "/mcp-oauth-credentials/my-server -H") })
	runCurlLines(t, s.log.String())
	env := filepath.Join(cmd.Dir, ".env")
	info, err := os.Stat(env)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the .env file: %v, %v", info, err)
	}
	before, err := os.ReadFile(env)
	if err != nil {
		t.Fatal(err)
	}
	s.kill()
	again := lockwood(context.Background(), t, []string{"HTTP_PORT=0", "ADMIN_ADDR=127.0.0.1:0"}, "serve", "--dev")
	again.Dir = cmd.Dir
	launch(t, again)
	after, err := os.ReadFile(env)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the second start changed the .env file: %v", err)
	}
	if !strings.HasPrefix(s.base, "http://127.0.0.1:") {
		t.Errorf("--dev listens on %s", s.base)
	}
}

// runCurlLines runs the lines that serve --dev printed, as they are, and holds that they
// show the whole use.
func runCurlLines(t *testing.T, text string) {
	t.Helper()
	lines := curlLines(text)
	answers := []string{`{"stored":true}`, `{"accessToken":"`, `{"tools":[{"name":"clock","description":"Tells the time"},{"name":"greet","description":"Says hello"}]}`, `"mcpServerId":"my-server"`, ""}
	if len(lines) != len(answers) {
		t.Fatalf("%d lines, want %d:\n%s", len(lines), len(answers), text)
	}
	for i, line := range lines {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", line+" --fail-with-body").CombinedOutput()
		if err != nil || !strings.Contains(string(out), answers[i]) {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
	}
}

// curlLines returns the commands that text shows.
func curlLines(text string) (lines []string) {
	for scanner := bufio.NewScanner(strings.NewReader(text)); scanner.Scan(); {
		if line := strings.TrimSpace(scanner.Text()); strings.HasPrefix(line, "curl ") {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestDevKeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), ".env")
	if err := os.WriteFile(path, []byte("# mine\nFOREST_AUTH_SECRET=kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	added, err := ensureDevSecrets(path, nil)
	if err != nil || len(added) != 1 || added[0] != "FOREST_EXECUTOR_ENCRYPTION_KEY" {
		t.Fatalf("added %v, %v", added, err)
	}
	text, _ := os.ReadFile(path)
	if !strings.HasPrefix(string(text), "# mine\nFOREST_AUTH_SECRET=kept\nFOREST_EXECUTOR_ENCRYPTION_KEY=") {
		t.Errorf("the file is now %q", text)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ensureDevSecrets(path, []string{"FOREST_EXECUTOR_ENCRYPTION_KEY=x"}); err != nil {
		t.Errorf("nothing was to be added, and yet: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ensureDevSecrets(path, nil); err == nil {
		t.Error("secrets were written into a file that others can read")
	}
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		serve(t, d.env).ready(t).deposit(t, 1, "s", "FAKE")
		r := do(t, d.env, "doctor", "--json")
		var findings []finding
		r.json(t, &findings)
		verdicts := map[string]string{}
		for _, f := range findings {
			verdicts[f.Check] = f.Verdict
			if f.Verdict != verdictOK && f.Verdict != verdictSkip && f.Remedy == "" {
				t.Errorf("%s has no remedy", f.Check)
			}
		}
		if r.code != exitOK || verdicts["key"] != verdictOK || verdicts["records"] != verdictOK || verdicts["schema"] != verdictOK {
			t.Errorf("exit code %d, %v", r.code, verdicts)
		}
		if r := do(t, d.with("FOREST_EXECUTOR_ENCRYPTION_KEY="+otherKey), "doctor"); r.code != exitFound || !strings.Contains(r.stdout, "fail") {
			t.Errorf("with another key: exit code %d\n%s", r.code, r.stdout)
		}
	})
	if r := do(t, nil, "doctor"); r.code != exitFound || !strings.Contains(r.stdout, "FOREST_AUTH_SECRET") {
		t.Errorf("without a configuration: exit code %d\n%s", r.code, r.stdout)
	}
}

// A store that Lockwood made takes no legacy record from anybody.
func TestANewStoreIsClosedToLegacy(t *testing.T) {
	t.Parallel()
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		serve(t, d.env).ready(t).deposit(t, 1, "s", "FAKE")
		if s := status(t, d.env); s.Legacy != "closed" {
			t.Errorf("legacy is %s", s.Legacy)
		}
		_, err := d.db.ExecContext(t.Context(), d.bind("UPDATE "+d.table+" SET refresh_token_enc = ?"), []byte(strings.Repeat("x", 64)))
		if err == nil {
			t.Error("the database took a legacy record")
		}
		if r := do(t, d.with("FOREST_EXECUTOR_WRITE_FORMAT=legacy", "HTTP_PORT=0", "ADMIN_ADDR="), "serve"); r.code != exitUsage {
			t.Errorf("writing legacy into it: exit code %d\n%s", r.code, r.stderr)
		}
	})
}

// Every secret and plaintext of a full run is searched for in all that it left.
func TestNothingSecretShows(t *testing.T) {
	t.Parallel()
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		secrets := []string{testAuthSecret, testKey, otherKey, "PLAINTEXT-refresh", "PLAINTEXT-secret", "PLAINTEXT-malformed"}
		env := d.with("FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS=" + otherKey)
		s := serve(t, env).ready(t)
		body := `{"mcpServerId":"s","clientId":"c","clientSecret":"PLAINTEXT-secret","refreshToken":"PLAINTEXT-refresh","tokenEndpoint":"https://idp.example.com/token"}`
		if a := s.call(t, 1, "POST", "/mcp-oauth-credentials", body); a.status != 200 {
			t.Fatalf("deposit: %d %s", a.status, a.body)
		}
		s.call(t, 1, "POST", "/mcp-oauth-credentials", body+`{"refreshToken":"PLAINTEXT-malformed"`)
		s.call(t, 1, "POST", "/mcp-oauth-credentials", `{"mcpServerId":7,"refreshToken":"PLAINTEXT-malformed","tokenEndpoint":"PLAINTEXT-malformed"}`)
		s.call(t, 1, "GET", "/mcp-oauth-credentials", "")
		left := []string{bodyOf(t, s.admin+"/metrics"), bodyOf(t, s.admin+"/readyz"), listing(t)}
		for _, args := range [][]string{{"key", "status"}, {"key", "status", "--json"}, {"credentials", "verify"}, {"doctor"}} {
			r := do(t, env, args...)
			left = append(left, r.stdout, r.stderr)
		}
		left = append(left, contents(t, d))
		s.call(t, 1, "DELETE", "/mcp-oauth-credentials/s", "")
		left = append(left, contents(t, d), s.log.String(), do(t, append(env, "DATABASE_SCHEMA=!", "HTTP_PORT=!"), "serve").stderr)
		for _, secret := range append(secrets, tokenFor(t, testAuthSecret, 1)[:60]) {
			for _, text := range left {
				if at := strings.Index(text, secret); at >= 0 {
					t.Errorf("%.12s… shows in: …%s…", secret, text[max(0, at-200):at])
				}
			}
		}
	})
}

func bodyOf(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// listing is what every user sees of the running processes.
func listing(t *testing.T) string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no process is listed: %v", err)
	}
	var all strings.Builder
	for _, p := range paths {
		text, _ := os.ReadFile(p) // a process may have ended
		all.Write(text)
	}
	return all.String()
}

// contents is all that the database holds.
func contents(t *testing.T, d *testDatabase) string {
	t.Helper()
	var all strings.Builder
	if d.pg != nil {
		for _, query := range []string{
			"SELECT encode(refresh_token_enc, 'escape') || encode(client_secret_enc, 'escape') || c::text FROM forest.ai_mcp_oauth_credentials c",
			"SELECT encode(wrapped, 'escape') || w::text FROM forest.lockwood_data_key_wraps w",
			"SELECT k::text FROM forest.lockwood_data_keys k", "SELECT i::text FROM forest.lockwood_instances i",
		} {
			all.WriteString(column(t, d, query))
		}
		return all.String()
	}
	path := strings.TrimPrefix(d.url, "sqlite:")
	for _, suffix := range []string{"", "-wal"} {
		text, err := os.ReadFile(path + suffix)
		if err != nil && suffix == "" {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

// column returns the first column of all rows, a line each.
func column(t *testing.T, d *testDatabase, query string) string {
	t.Helper()
	rows, err := d.db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all strings.Builder
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		all.WriteString(text + "\n")
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all.String()
}
