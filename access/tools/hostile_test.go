package tools_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/access/egress"
	"github.com/lockwood-kms/lockwood/access/servers"
	"github.com/lockwood-kms/lockwood/access/tools"
)

// answers is a server of MCP over JSON that answers tools/list by a function of the cursor.
func answers(list func(cursor string) string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var call struct {
			ID     json.RawMessage `json:"id"`
			Method string          `json:"method"`
			Params struct {
				Cursor string `json:"cursor"`
			} `json:"params"`
		}
		text, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(text, &call); err != nil || call.ID == nil {
			w.WriteHeader(http.StatusAccepted)
			return
		}
		result := `"error":{"code":-32601,"message":"FAKE-text"}`
		switch call.Method {
		case "initialize":
			result = `"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"FAKE-text","version":"1"}}`
		case "tools/list":
			result = list(call.Params.Cursor)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,%s}`, call.ID, result)
	})
}

// page is a result of n tools, and where it goes on.
func page(n int, next string) string {
	one := `{"name":"a","description":"b","inputSchema":{"type":"object"}}`
	return `"result":{"tools":[` + strings.TrimSuffix(strings.Repeat(one+",", n), ",") + `],"nextCursor":"` + next + `"}`
}

// What a server may do wrong ends the listing, and is told in words of our own.
func TestHostileServers(t *testing.T) {
	status := func(code int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "FAKE-text unauthorized 401", code) })
	}
	for name, c := range map[string]struct {
		handler http.Handler
		want    string
	}{
		"forbidden":             {status(http.StatusForbidden), "it answered 403"},
		"an error":              {status(http.StatusInternalServerError), "it answered 500"},
		"not MCP":               {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "FAKE-text") }), "not what MCP says"},
		"no such method":        {answers(func(string) string { return `"error":{"code":-32601,"message":"FAKE-text: 401 unauthorized"}` }), "not what MCP says"},
		"a result of no sense":  {answers(func(string) string { return `"result":{"tools":"FAKE-text"}` }), "not what MCP says"},
		"pages without an end":  {answers(func(string) string { return page(1, "again") }), "200 pages"},
		"other pages each time": {answers(func(at string) string { n, _ := strconv.Atoi(at); return page(1, strconv.Itoa(n+1)) }), "200 pages"},
		"too many tools":        {answers(func(string) string { return page(2001, "") }), "more than 2000 tools"},
		"too many bytes":        {answers(func(string) string { return `"result":{"tools":[],"x":"` + strings.Repeat("FAKE", 1<<19) + `"}` }), "more than 2097152 bytes"},
		"too many bytes, in pages": {answers(func(at string) string {
			return `"result":{"tools":[],"x":"` + strings.Repeat("FAKE", 1<<16) + `","nextCursor":"` + at + `1"}`
		}), "more than 2097152 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			seen, tok := &seen{}, &tokens{}
			_, err := list(t, oauth(starts(t, seen.watching(c.handler, "FAKE-at-1"))), tok)
			if !errors.Is(err, tools.ErrUnreachable) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if len(tok.demands) != 1 {
				t.Errorf("asked for %d access tokens: only a 401 is one", len(tok.demands))
			}
		})
	}
}

// Nothing is sent anywhere but to the configured origin.
func TestAnotherOrigin(t *testing.T) {
	elsewhere := &seen{}
	other := starts(t, elsewhere.watching(http.NotFoundHandler(), "FAKE-at-1"))
	redirect := func(code int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other, code) })
	}
	endpoint := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = fmt.Fprintf(w, "event: endpoint\ndata: %s\n\n", other)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	for name, c := range map[string]struct {
		handler http.Handler
		kind    servers.Transport
		want    string
	}{
		"a redirect of a POST": {redirect(http.StatusTemporaryRedirect), servers.HTTP, "it answered 307"},
		"a redirect to a GET":  {redirect(http.StatusSeeOther), servers.HTTP, "it answered 303"},
		"a redirect of events": {redirect(http.StatusFound), servers.SSE, "it answered 302"},
		"an endpoint":          {endpoint, servers.SSE, "another origin"},
	} {
		t.Run(name, func(t *testing.T) {
			s := oauth(starts(t, (&seen{}).watching(c.handler, "FAKE-at-1")))
			s.Transport = c.kind
			if _, err := list(t, s, &tokens{}); !errors.Is(err, tools.ErrUnreachable) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	if n := len(elsewhere.requests); n != 0 {
		t.Errorf("%d requests went elsewhere", n)
	}
}

func TestNotReached(t *testing.T) {
	if _, err := list(t, oauth("http://127.0.0.1:1/mcp?k=FAKE"), &tokens{}); !errors.Is(err, tools.ErrUnreachable) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody listens: %v", err)
	}
	url := starts(t, streamable(1, nil))
	_, err := tools.NewService(&tokens{}, oauth(url), egress.Options{}, "test").List(t.Context(), theKey, nil)
	if !errors.Is(err, tools.ErrUnreachable) || !strings.Contains(err.Error(), "not admitted") {
		t.Errorf("an address that is not admitted: %v", err)
	}
}

// A server that never answers is left when the caller's time is over.
func TestAServerThatDoesNotAnswer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	url := starts(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // so that the server notices when the client is gone
		cancel()
		<-r.Context().Done()
	}))
	if _, err := tools.NewService(&tokens{}, oauth(url), local, "test").List(ctx, theKey, nil); !errors.Is(err, tools.ErrUnreachable) {
		t.Error(err)
	}
}

// Memory is asked for before a byte is kept.
func TestNoRoom(t *testing.T) {
	url := starts(t, streamable(10, nil))
	var asked int64
	service := tools.NewService(&tokens{}, oauth(url), local, "test")
	got, err := service.List(t.Context(), theKey, func(n int64) bool { asked += n; return true })
	holds(t, got, err, 10)
	left := asked / 2
	_, err = service.List(t.Context(), theKey, func(n int64) bool { left -= n; return left >= 0 })
	if !errors.Is(err, tools.ErrNoRoom) || errors.Is(err, tools.ErrUnreachable) {
		t.Errorf("with half of the %d bytes: %v", asked, err)
	}
}
