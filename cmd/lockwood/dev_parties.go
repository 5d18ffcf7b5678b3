package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/lockwood-kms/lockwood/config"
	"github.com/lockwood-kms/lockwood/internal/plain"
)

// devRefreshToken is the refresh token that devParties issued, so to speak, before they
// started.
const devRefreshToken = "my-refresh-token"

// devParties are the two that a credential is for, scripted and on loopback, so that
// serve --dev shows its whole use: a token endpoint that rotates refresh tokens, and an MCP
// server that takes the access tokens of that endpoint only.
type devParties struct {
	url       string // of both
	directory string // path of the file that names the MCP server
	server    *http.Server

	mu                    sync.Mutex
	refresh, last, access string
}

// devTaken are variables by which an operator has parties of their own, or wants none.
var devTaken = []string{
	"FOREST_EXECUTOR_MCP_SERVERS_FILE", "FOREST_ENV_SECRET", "FOREST_ENV_SECRET_FILE", "FOREST_EXECUTOR_ACCESS_TOKENS", "FOREST_EXECUTOR_ALLOW_LOCAL_TOKEN_ENDPOINTS",
}

// startDevParties starts them, unless a variable of devTaken is set, in environ or in the
// .env file at path; then it returns nil. The caller closes them.
func startDevParties(path string, environ []string) (*devParties, error) {
	inFile, err := config.EnvFile{Path: path, Optional: true}.Read()
	if err != nil {
		return nil, err
	}
	for _, name := range devTaken {
		if _, ok := inFile[name]; ok || isSet(environ, name) {
			return nil, nil
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for scripted parties: %w", err)
	}
	p := &devParties{url: "http://" + l.Addr().String()}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", p.token)
	mux.Handle("/mcp", p.behindBearer(devTools()))
	p.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	if p.directory, err = writeDirectory(p.url); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	go func() { _ = p.server.Serve(l) }()
	return p, nil
}

// environ is what the service has to know of them.
func (p *devParties) environ() []string {
	return []string{"FOREST_EXECUTOR_MCP_SERVERS_FILE=" + p.directory, "FOREST_EXECUTOR_ALLOW_LOCAL_TOKEN_ENDPOINTS=true"}
}

// close ends them.
func (p *devParties) close() {
	_ = p.server.Close()
	_ = os.Remove(p.directory)
}

// writeDirectory writes a directory with the one server.
func writeDirectory(url string) (path string, err error) {
	text, err := json.Marshal(map[string]any{"mcpServers": map[string]any{"my-server": map[string]any{"url": url + "/mcp", "authType": "oauth2"}}})
	if err != nil {
		return "", fmt.Errorf("encoding a directory of MCP servers: %w", err)
	}
	f, err := os.CreateTemp("", "lockwood-servers-*.json")
	if err != nil {
		return "", fmt.Errorf("making a directory of MCP servers: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// token answers refresh grants (RFC 6749, section 6). The last refresh token is taken once
// more, and the first one begins anew.
func (p *devParties) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	switch token := r.PostFormValue("refresh_token"); {
	case r.PostFormValue("grant_type") != "refresh_token", token == "", token != devRefreshToken && token != p.refresh && token != p.last:
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error":"invalid_grant"}`)
		return
	default:
		p.last, p.refresh, p.access = token, rand.Text(), rand.Text()
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"access_token": p.access, "token_type": "Bearer", "expires_in": 3600, "refresh_token": p.refresh, "scope": "tools",
	})
}

// behindBearer answers by h to whoever has the current access token.
func (p *devParties) behindBearer(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		ok := p.access != "" && r.Header.Get("Authorization") == "Bearer "+p.access
		p.mu.Unlock()
		if !ok {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			http.Error(w, "an access token of this server's token endpoint is required", http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// devTools is an MCP server with two tools.
func devTools() http.Handler {
	s := mcp.NewServer(&mcp.Implementation{Name: "lockwood-dev", Version: versionString()}, nil)
	nothing := json.RawMessage(`{"type":"object"}`)
	s.AddTool(&mcp.Tool{Name: "greet", Description: "Says hello", InputSchema: nothing}, says(func() string { return "Hello!" }))
	s.AddTool(&mcp.Tool{Name: "clock", Description: "Tells the time", InputSchema: nothing}, says(func() string { return time.Now().Format(time.RFC3339) }))
	return mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return s }, &mcp.StreamableHTTPOptions{Stateless: true})
}

func says(text func() string) mcp.ToolHandler {
	return func(context.Context, *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: text()}}}, nil
	}
}

// print prints what they are for.
func (p *devParties) print(w io.Writer, base, token string) {
	plain.Fprintf(w, `
Deposit a credential (as user 1, the token is valid for a day). Its token endpoint and its MCP server are scripted, and in this process:

  curl -sS -X POST %[1]s/mcp-oauth-credentials -H 'Authorization: Bearer %[2]s' -H 'Content-Type: application/json' -d '{"mcpServerId":"my-server","refreshToken":"%[3]s","tokenEndpoint":"%[4]s/token"}'

Get an access token for it, and list the tools of its server:

  curl -sS -X POST %[1]s/mcp-oauth-credentials/my-server/access-token -H 'Authorization: Bearer %[2]s'
  curl -sS '%[1]s/list-mcp-tools?mcpServerId=my-server' -H 'Authorization: Bearer %[2]s'
`, base, token, devRefreshToken, p.url)
}
