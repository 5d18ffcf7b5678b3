// Package docs_test runs the programs of connectors.md as they are written, against the
// built program, a token endpoint and an MCP server. It exists because what a stranger
// copies first has to work.
package docs_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/lockwood-kms/lockwood/client"
	"github.com/lockwood-kms/lockwood/internal/lockwoodtest"
	"github.com/lockwood-kms/lockwood/internal/openapitest"
)

const document = "connectors.md"

// blocks returns the blocks of the document in a language, without their indentation.
func blocks(t *testing.T, language string) []string {
	t.Helper()
	text, err := os.ReadFile(document)
	must(t, err)
	var found []string
	for _, m := range regexp.MustCompile("(?ms)^( *)```"+language+"\n(.*?)^ *```$").FindAllStringSubmatch(string(text), -1) {
		found = append(found, regexp.MustCompile("(?m)^"+m[1]).ReplaceAllString(m[2], ""))
	}
	return found
}

// place is what the document calls lockwood.example.com, mcp.example.com and
// idp.example.com, for one user.
type place struct {
	*lockwoodtest.Instance
	mcp       *mcpServer
	url       string // of the MCP server
	endpoint  string // of the token endpoint
	userToken string
}

func newPlace(t *testing.T, i *lockwoodtest.Instance, user int64) *place {
	t.Helper()
	signed, err := client.SignedUserToken(lockwoodtest.AuthSecret, user)
	must(t, err)
	token, err := signed(t.Context())
	must(t, err)
	p := &place{Instance: i, mcp: &mcpServer{}, endpoint: fmt.Sprintf("%s/granted/docs-%d", i.TokenEndpoint, user), userToken: string(token)}
	s := httptest.NewServer(p.mcp)
	t.Cleanup(s.Close)
	p.url = s.URL + "/mcp"
	return p
}

// fill puts the place's names in the place of the document's, which have to be there.
func (p *place) fill(t *testing.T, program string, extra ...string) string {
	t.Helper()
	for from, to := range map[string]string{"https://lockwood.example.com": p.URL, "https://mcp.example.com/mcp": p.url, "https://idp.example.com/oauth2/token": p.endpoint} {
		program = strings.ReplaceAll(program, from, to)
	}
	for i := 0; i < len(extra); i += 2 {
		if !strings.Contains(program, extra[i]) {
			t.Fatalf("the document no longer says %s", extra[i])
		}
		program = strings.ReplaceAll(program, extra[i], extra[i+1])
	}
	if strings.Contains(program, "example.com") {
		t.Fatalf("a name is left:\n%s", program)
	}
	return program
}

// run runs a program and returns what it printed.
func run(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// mcpServer is an MCP server that has seen the first access token too often: it answers
// 401 to it.
type mcpServer struct {
	mu      sync.Mutex
	bearers []string
}

func (s *mcpServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	bearer := r.Header.Get("Authorization")
	s.mu.Lock()
	s.bearers = append(s.bearers, bearer)
	s.mu.Unlock()
	if bearer == "Bearer FAKE-at-1" || !strings.HasPrefix(bearer, "Bearer FAKE-at-") {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var call struct {
		ID     json.RawMessage `json:"id"`
		Method string          `json:"method"`
		Params struct {
			Version string `json:"protocolVersion"`
		} `json:"params"`
	}
	text, _ := io.ReadAll(r.Body)
	if json.Unmarshal(text, &call) != nil {
		return // a GET of a document's program
	}
	result, ok := map[string]string{
		"initialize": fmt.Sprintf(`{"protocolVersion":%q,"capabilities":{"tools":{}},"serverInfo":{"name":"test","version":"1"}}`, call.Params.Version),
		"tools/list": `{"tools":[{"name":"greet","inputSchema":{"type":"object"}}]}`,
	}[call.Method]
	switch {
	case call.ID == nil:
		w.WriteHeader(http.StatusAccepted)
	case !ok:
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"no such method"}}`, call.ID)
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":%s}`, call.ID, result)
	}
}

// replaced asserts that the server saw the first token and then the second.
func (s *mcpServer) replaced(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.bearers); n < 2 || s.bearers[0] != "Bearer FAKE-at-1" || s.bearers[n-1] != "Bearer FAKE-at-2" {
		t.Errorf("the MCP server saw %q", s.bearers)
	}
}

func TestCurl(t *testing.T) {
	p := newPlace(t, lockwoodtest.Start(t, ".."), 1)
	script := p.fill(t, strings.Join(blocks(t, "sh"), ""), "USER_TOKEN='…'", "USER_TOKEN='"+p.userToken+"'")
	out := run(t, t.TempDir(), nil, "sh", "-euc", script)
	for _, want := range []string{`{"stored":true}`, "401\n200\n", `"mcpServerId":"my-server"`} {
		if !strings.Contains(out, want) {
			t.Errorf("it did not print %s:\n%s", want, out)
		}
	}
	p.mcp.replaced(t)
}

// TestGo builds the program inside the module, of which the work tree sees nothing.
func TestGo(t *testing.T) {
	p := newPlace(t, lockwoodtest.Start(t, ".."), 1)
	programs := blocks(t, "go")
	if len(programs) != 1 {
		t.Fatalf("the document has %d programs", len(programs))
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	must(t, os.WriteFile(source, []byte(p.fill(t, programs[0])), 0o600))
	root, err := filepath.Abs("..")
	must(t, err)
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(root, "connectors-program", "main.go"): source}})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	program := filepath.Join(dir, "program")
	run(t, root, nil, "go", "build", "-buildvcs=false", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, "./connectors-program")
	if out := run(t, dir, []string{"USER_TOKEN=" + p.userToken}, program); out != "200 OK\n" {
		t.Errorf("it printed %s", out)
	}
	p.mcp.replaced(t)
}

// TestNode runs the programs for one user, one after another: the second finds what the
// first deposited, and so does the executor's.
func TestNode(t *testing.T) {
	dir := lockwoodtest.Node(t, "..")
	p := newPlace(t, lockwoodtest.Start(t, ".."), 1)
	programs := blocks(t, "js")
	if len(programs) != 3 {
		t.Fatalf("the document has %d programs", len(programs))
	}
	env := []string{"USER_TOKEN=" + p.userToken, "FOREST_AUTH_SECRET=" + lockwoodtest.AuthSecret}
	for i, want := range []string{"200\n", "[ 'greet' ]\n"} {
		file := filepath.Join(dir, fmt.Sprintf("program-%d.js", i))
		must(t, os.WriteFile(file, []byte(p.fill(t, programs[i])), 0o600))
		if out := run(t, dir, env, "node", file); out != want {
			t.Errorf("program %d printed %s", i, out)
		}
	}
	p.mcp.replaced(t)
	for name, text := range map[string]string{
		"service.js": p.fill(t, programs[2]),
		"errors.js": `export class OAuthReauthRequiredError extends Error {}
export class OAuthRefreshError extends Error {}
export class ExecutorEncryptionKeyMissingError extends Error {}`,
		"steps.js": `import { mcpOAuthTokenService } from './service.js';
import { OAuthReauthRequiredError } from './errors.js';
console.log(await mcpOAuthTokenService.getAccessToken(1, 'my-server'));
console.log(await mcpOAuthTokenService.getAccessToken(1, 'my-server', { forceRefresh: true }));
mcpOAuthTokenService.evict(1, 'my-server');
await mcpOAuthTokenService.getAccessToken(2, 'my-server').catch(error => console.log(error instanceof OAuthReauthRequiredError));`,
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	if out := run(t, dir, env, "node", "steps.js"); out != "FAKE-at-2\nFAKE-at-3\ntrue\n" {
		t.Errorf("the executor printed %s", out)
	}
}

// TestEachErrorIsThere holds that the document has each code of the contract, each state of
// the client for Node.js and each of the one in Go.
func TestEachErrorIsThere(t *testing.T) {
	text, err := os.ReadFile(document)
	must(t, err)
	contract, err := openapitest.Load("openapi.yaml")
	must(t, err)
	names := contract.Codes("deposit", "list", "disconnect", "accessToken")
	for file, pattern := range map[string]string{"../client/errors.go": `(?m)^\t(Err\w+) += errors`, "../clients/node/src/errors.js": `'(\w+)'(?: \||\} State)`} {
		source, err := os.ReadFile(file)
		must(t, err)
		found := regexp.MustCompile(pattern).FindAllStringSubmatch(string(source), -1)
		if len(found) < 15 {
			t.Errorf("%s: %d names", file, len(found))
		}
		for _, m := range found {
			names = append(names, m[1])
		}
	}
	for _, name := range names {
		if !strings.Contains(string(text), "| `"+name+"` |") {
			t.Errorf("nothing is said of %s", name)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
