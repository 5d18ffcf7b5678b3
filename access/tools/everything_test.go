package tools_test

import (
	"bufio"
	"net"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/access/servers"
	"github.com/lockwood-kms/lockwood/internal/npmtest"
)

// The MCP server that its makers test clients with, over both transports and behind a
// bearer check, which first rejects the token.
func TestTheServerOfEverything(t *testing.T) {
	program := everything(t)
	for mode, path := range map[string]string{"streamableHttp": "/mcp", "sse": "/sse"} {
		t.Run(mode, func(t *testing.T) {
			upstream := startEverything(t, program, mode)
			seen := &seen{}
			proxy := &httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(upstream) }}
			s := oauth(strings.TrimSuffix(starts(t, seen.watching(proxy, "FAKE-at-2")), "/mcp") + path)
			if mode == "sse" {
				s.Transport = servers.SSE
			}
			tok := &tokens{}
			got, err := list(t, s, tok)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, tool := range got {
				if names = append(names, tool.Name); tool.Description == "" {
					t.Errorf("%s has no description", tool.Name)
				}
			}
			if len(got) < 10 || !slices.Contains(names, "echo") || !slices.Contains(names, "get-sum") {
				t.Errorf("the tools are %q", names)
			}
			if b := seen.bearers(); !slices.Equal(b, []string{"Bearer FAKE-at-1", "Bearer FAKE-at-2"}) || len(tok.demands) != 2 {
				t.Errorf("bearers %q", b)
			}
		})
	}
}

// startEverything runs the server until the test ends. It names no port of its own choice,
// so that one is looked for that is free.
func startEverything(t *testing.T, program, mode string) *url.URL {
	t.Helper()
	for range 5 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		port := l.Addr().(*net.TCPAddr).Port
		must(t, l.Close())
		cmd := exec.CommandContext(t.Context(), "node", program, mode)
		cmd.Env = append(os.Environ(), "PORT="+strconv.Itoa(port))
		said, err := cmd.StderrPipe()
		must(t, err)
		must(t, cmd.Start())
		lines := bufio.NewScanner(said)
		for lines.Scan() {
			if strings.Contains(lines.Text(), "on port "+strconv.Itoa(port)) {
				go func() {
					for lines.Scan() { // a full pipe would stop it
					}
				}()
				t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
				return &url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
			}
		}
		_ = cmd.Wait() // another process has the port
	}
	t.Fatal("it does not start")
	return nil
}

// everything returns the path of the server.
func everything(t *testing.T) string {
	t.Helper()
	return filepath.Join(npmtest.Install(t, "../../test/mcp-everything"), "node_modules", "@modelcontextprotocol", "server-everything", "dist", "index.js")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
