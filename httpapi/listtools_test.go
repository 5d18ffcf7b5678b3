package httpapi_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/access/servers"
	"github.com/lockwood-kms/lockwood/access/tools"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/httpapi"
)

const toolsRoute = "/list-mcp-tools"

// fakeTools answers with tools or err, once it has asked for bytes of memory.
type fakeTools struct {
	tools []tools.Tool
	err   error
	bytes int64
	asked []access.Key
}

func (f *fakeTools) List(_ context.Context, key access.Key, reserve func(int64) bool) ([]tools.Tool, error) {
	f.asked = append(f.asked, key)
	if f.bytes > 0 && !reserve(f.bytes) {
		return nil, tools.ErrNoRoom
	}
	return f.tools, f.err
}

func TestListTools(t *testing.T) {
	fake := &fakeTools{tools: []tools.Tool{{Name: "search", Description: "Search <things> \u2028 déjà"}, {Name: "create"}}, bytes: tools.MaxBytes}
	server, _ := newServer(t, &httpapi.Options{Tools: fake})
	head := bearer(tokenOf(t, 7))
	const want = `{"tools":[{"name":"search","description":"Search <things> ` + "\u2028" + ` déjà"},{"name":"create","description":""}]}`
	if w := do(server, http.MethodGet, toolsRoute+"?mcpServerId=srv-1", "", head...); w.Code != http.StatusOK || w.Body.String() != want {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	// As upstream, also by a cookie, and the head alone.
	cookie := []string{"Cookie", "forest_session_token=" + strings.TrimPrefix(head[1], "Bearer ")}
	if w := do(server, http.MethodHead, "/List-MCP-Tools/?mcpServerId=srv-1", "", cookie...); w.Code != http.StatusOK {
		t.Errorf("HEAD: %d", w.Code)
	}
	fake.tools = []tools.Tool{}
	if w := do(server, http.MethodGet, toolsRoute+"?mcpServerId=srv-1", "", head...); w.Body.String() != `{"tools":[]}` {
		t.Errorf("no tools: %s", w.Body)
	}
	if w := do(server, http.MethodPost, toolsRoute, "", head...); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "HEAD, GET" {
		t.Errorf("POST: %d %v", w.Code, w.Header())
	}
	if w := do(server, http.MethodGet, toolsRoute+"?mcpServerId=srv-1", ""); w.Code != http.StatusUnauthorized {
		t.Errorf("without a token: %d", w.Code)
	}
	for _, key := range fake.asked {
		if key != (access.Key{UserID: 7, MCPServerID: "srv-1"}) {
			t.Errorf("asked for %+v", key)
		}
	}
	off, _ := newServer(t, nil)
	if w := do(off, http.MethodGet, toolsRoute+"?mcpServerId=srv-1", "", head...); w.Code != http.StatusNotFound || w.Body.String() != "Not Found" {
		t.Errorf("where they are off: %d %s", w.Code, w.Body)
	}
}

// The query is read as Node.js reads it.
func TestTheServerInTheQuery(t *testing.T) {
	for query, want := range map[string]string{
		"": "", "?": "", "?mcpServerId": "", "?mcpServerId=": "", "?mcpServerId=a&mcpServerId=b": "", "?mcpServerId=a&mcpServerId=": "", "?MCPServerId=a": "",
		"?mcpServerId=a%20b+c": "a b c", "?x=1&mcpServerId=a&y": "a", "?mcpServer%49d=a": "a", "?mcpServerId=a=b": "a=b", "?mcpServerId=%zz": "%zz",
		"?mcpServerId=%C3%A9": "é", "?mcpServerId=a%26b%23": "a&b#",
	} {
		fake := &fakeTools{}
		server, _ := newServer(t, &httpapi.Options{Tools: fake})
		w := do(server, http.MethodGet, toolsRoute+query, "", bearer(tokenOf(t, 7))...)
		switch {
		case want == "":
			if w.Code != http.StatusBadRequest || w.Body.String() != `{"error":"Missing required query parameter \"mcpServerId\""}` || len(fake.asked) > 0 {
				t.Errorf("%s: %d %s", query, w.Code, w.Body)
			}
		case w.Code != http.StatusOK || len(fake.asked) != 1 || fake.asked[0].MCPServerID != want:
			t.Errorf("%s: %d, asked for %v", query, w.Code, fake.asked)
		}
	}
	for _, id := range []string{strings.Repeat("i", 256), "a%00b"} {
		fake := &fakeTools{}
		server, _ := newServer(t, &httpapi.Options{Tools: fake})
		if w := do(server, http.MethodGet, toolsRoute+"?mcpServerId="+id, "", bearer(tokenOf(t, 7))...); w.Code != http.StatusNotFound || len(fake.asked) > 0 {
			t.Errorf("%.10s: %d", id, w.Code)
		}
	}
}

func TestNoTools(t *testing.T) {
	later := func(err error, after time.Duration) error { return &access.RetryError{Err: err, After: after} }
	grant := func(v protocol.Verdict, endpoint string) error {
		return &access.GrantError{Verdict: v, After: time.Minute, Endpoint: endpoint}
	}
	const idp = "https://idp.example.com/token"
	const again = `{"error":"Could not refresh the connection to this tool. Please try again."}`
	for name, c := range map[string]struct {
		err    error
		status int
		body   string
		retry  string
	}{
		"unknown":         {fmt.Errorf("finding: %w", servers.ErrNotFound), 404, `{"error":"No MCP server is configured for id \"srv-1\""}`, ""},
		"no directory":    {fmt.Errorf("finding: %w", servers.ErrUnavailable), 503, `{"code":"mcp_servers_unavailable"}`, "5"},
		"reauth":          {access.ErrReauth, 409, `{"awaitingInputReason":"needs-oauth-reauth","mcpServerId":"srv-1"}`, ""},
		"unreachable":     {fmt.Errorf("%w: FAKE", tools.ErrUnreachable), 503, `{"error":"The MCP server could not be reached to list its tools"}`, ""},
		"no room":         {tools.ErrNoRoom, 503, `{"code":"server_busy"}`, "1"},
		"refused":         {grant(protocol.Refused, idp), 400, again, ""},
		"an endpoint":     {grant(protocol.Refused, "ftp://x/"), 400, `{"error":"This tool is misconfigured (invalid token endpoint). Contact your administrator."}`, ""},
		"failed":          {grant(protocol.Failed, idp), 400, again, ""},
		"unavailable":     {grant(protocol.Unavailable, idp), 400, again, ""},
		"unknown outcome": {grant(protocol.Unknown, idp), 400, again, ""},
		"waiting":         {later(access.ErrWaiting, time.Second), 400, again, ""},
		"too many":        {later(access.ErrTooMany, 30*time.Second), 429, `{"error":"Too many requests"}`, "30"},
		"busy":            {later(access.ErrBusy, time.Second), 503, `{"code":"server_busy"}`, "1"},
		"no key":          {fmt.Errorf("sealing: %w", core.ErrKeyMissing), 503, `{"code":"executor_encryption_key_missing"}`, ""},
		"no database":     {fmt.Errorf("reading: %w", core.ErrStoreUnavailable), 503, `{"code":"database_unavailable"}`, "1"},
		"a defect":        {errors.New("FAKE-secret"), 500, `{"error":"Internal server error"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			server, _ := newServer(t, &httpapi.Options{Tools: &fakeTools{err: c.err}})
			w := do(server, http.MethodGet, toolsRoute+"?mcpServerId=srv-1", "", bearer(tokenOf(t, 7))...)
			if w.Code != c.status || w.Body.String() != c.body || w.Header().Get("Retry-After") != c.retry {
				t.Errorf("%d %s, Retry-After %q; want %d %s, %q", w.Code, w.Body, w.Header().Get("Retry-After"), c.status, c.body, c.retry)
			}
		})
	}
}

// A listing takes of its user's share of the memory, and gives it back.
func TestToolsTakeMemory(t *testing.T) {
	fake := &fakeTools{bytes: tools.MaxBytes + 1<<20}
	server, _ := newServer(t, &httpapi.Options{Tools: fake, MaxMemory: 17 << 20})
	head := bearer(tokenOf(t, 7))
	if w := do(server, http.MethodGet, toolsRoute+"?mcpServerId=a", "", head...); w.Code != http.StatusServiceUnavailable || w.Body.String() != `{"code":"server_busy"}` {
		t.Errorf("more than the share: %d %s", w.Code, w.Body)
	}
	fake.bytes = tools.MaxBytes
	for range 3 {
		if w := do(server, http.MethodGet, toolsRoute+"?mcpServerId=a", "", head...); w.Code != http.StatusOK {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
}
