package tools_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/egress"
	"github.com/lockwood-kms/lockwood/access/servers"
	"github.com/lockwood-kms/lockwood/access/tools"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/credential/tokenendpoint"
)

var local = egress.Options{Endpoints: tokenendpoint.Options{AllowLocal: true}}

var theKey = access.Key{UserID: 7, MCPServerID: "srv-1"}

// oneServer is a directory of one server.
type oneServer servers.Server

func (d *oneServer) Find(_ context.Context, id string) (*servers.Server, error) {
	if id != theKey.MCPServerID {
		return nil, servers.ErrNotFound
	}
	return (*servers.Server)(d), nil
}

// tokens gives out FAKE-at-1, and a further one each time that the current one is rejected.
type tokens struct {
	n       int
	demands []access.Demand
	err     error
}

func (s *tokens) Token(_ context.Context, key access.Key, d access.Demand) (*access.Token, error) {
	s.demands = append(s.demands, d)
	if key != theKey {
		return nil, errors.New("another key")
	}
	if s.n == 0 || d.Rejected == s.current() {
		s.n++
	}
	return &access.Token{AccessToken: s.current()}, s.err
}

func (s *tokens) current() core.Secret { return core.Secret(fmt.Sprintf("FAKE-at-%d", s.n)) }

// seen are the requests that a server got.
type seen struct {
	mu       sync.Mutex
	requests []*http.Request
}

// watching returns a handler that notes every request, and lets h answer it if its bearer
// is one of those.
func (s *seen) watching(h http.Handler, bearers ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests = append(s.requests, r)
		s.mu.Unlock()
		if bearer := r.Header.Get("Authorization"); !slices.Contains(bearers, strings.TrimPrefix(bearer, "Bearer ")) {
			http.Error(w, "FAKE-text: "+bearer, http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// bearers are the bearers of the requests, each once, in order.
func (s *seen) bearers() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, r := range s.requests {
		all = append(all, r.Header.Get("Authorization"))
	}
	return slices.Compact(all)
}

// mcpServer is one of the SDK's own, with n tools in pages of three.
func mcpServer(n int) *mcp.Server {
	s := mcp.NewServer(&mcp.Implementation{Name: "test", Version: "1"}, &mcp.ServerOptions{PageSize: 3})
	for i := range n {
		s.AddTool(&mcp.Tool{Name: fmt.Sprintf("tool-%02d", i), Description: strings.Repeat("déjà ", i), InputSchema: map[string]any{"type": "object"}},
			func(context.Context, *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
				return nil, errors.New("called")
			})
	}
	return s
}

func streamable(n int, opts *mcp.StreamableHTTPOptions) http.Handler {
	s := mcpServer(n)
	return mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return s }, opts)
}

func sse(n int) http.Handler {
	s := mcpServer(n)
	return mcp.NewSSEHandler(func(*http.Request) *mcp.Server { return s }, nil)
}

// starts returns the URL of a server that answers by h.
func starts(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(func() {
		s.CloseClientConnections() // of a stream that a test left open
		s.Close()
	})
	return s.URL + "/mcp"
}

func oauth(url string) *oneServer {
	return &oneServer{ID: theKey.MCPServerID, URL: url, Transport: servers.HTTP, AuthType: servers.AuthOAuth2}
}

func list(t *testing.T, s *oneServer, tok *tokens) ([]tools.Tool, error) {
	t.Helper()
	got, err := tools.NewService(tok, s, local, "test").List(t.Context(), theKey, nil)
	if err != nil && strings.Contains(err.Error(), "FAKE") {
		t.Errorf("the error tells what the server or the token is: %v", err)
	}
	return got, err
}

// holds fails unless the tools are the n of mcpServer.
func holds(t *testing.T, got []tools.Tool, err error, n int) {
	t.Helper()
	if err != nil || got == nil || len(got) != n {
		t.Fatalf("%d tools, %v; want %d", len(got), err, n)
	}
	for i, tool := range got {
		if want := (tools.Tool{Name: fmt.Sprintf("tool-%02d", i), Description: strings.Repeat("déjà ", i)}); tool != want {
			t.Errorf("tool %d is %+v", i, tool)
		}
	}
}

// The tools of real servers are listed, page by page, over each transport.
func TestEveryTransport(t *testing.T) {
	for name, c := range map[string]struct {
		handler http.Handler
		kind    servers.Transport
	}{
		"streamable HTTP, with sessions": {streamable(10, nil), servers.HTTP},
		"answers as JSON":                {streamable(10, &mcp.StreamableHTTPOptions{JSONResponse: true}), servers.HTTP},
		"without sessions":               {streamable(10, &mcp.StreamableHTTPOptions{Stateless: true}), servers.HTTP},
		"server-sent events":             {sse(10), servers.SSE},
		"events, where HTTP was tried":   {sse(10), servers.HTTP},
		"no tools":                       {streamable(0, nil), servers.HTTP},
	} {
		t.Run(name, func(t *testing.T) {
			seen := &seen{}
			s := oauth(starts(t, seen.watching(c.handler, "FAKE-at-1")))
			s.Transport = c.kind
			got, err := list(t, s, &tokens{})
			want := 10
			if name == "no tools" {
				want = 0
			}
			holds(t, got, err, want)
			if b := seen.bearers(); !slices.Equal(b, []string{"Bearer FAKE-at-1"}) {
				t.Errorf("bearers %q", b)
			}
		})
	}
}

// A token that is rejected is exchanged, once.
func TestARejectedToken(t *testing.T) {
	for takes, want := range map[string]error{"FAKE-at-2": nil, "FAKE-at-3": access.ErrReauth} {
		for name, h := range map[string]http.Handler{"http": streamable(4, nil), "sse": sse(4)} {
			seen, tok := &seen{}, &tokens{}
			s := oauth(starts(t, seen.watching(h, takes)))
			s.Transport = servers.Transport(name)
			got, err := list(t, s, tok)
			if want == nil {
				holds(t, got, err, 4)
			} else if !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", name, err, want)
			}
			if len(tok.demands) != 2 || tok.demands[0].Rejected != "" || tok.demands[1].Rejected != "FAKE-at-1" {
				t.Errorf("%s: %d demands", name, len(tok.demands))
			}
			if b := seen.bearers(); !slices.Equal(b, []string{"Bearer FAKE-at-1", "Bearer FAKE-at-2"}) {
				t.Errorf("%s: bearers %q", name, b)
			}
		}
	}
}

// A server that takes no access token gets the headers of the directory, and its 401 is a
// failure like any other.
func TestAServerWithoutTokens(t *testing.T) {
	seen, tok := &seen{}, &tokens{}
	s := oauth(starts(t, seen.watching(streamable(4, nil), "FAKE-static")))
	s.AuthType = "apiKey"
	s.Headers = map[string]core.Secret{"Authorization": "Bearer FAKE-static", "X-Team": "FAKE-team"}
	got, err := list(t, s, tok)
	holds(t, got, err, 4)
	for _, r := range seen.requests {
		if r.Header.Get("X-Team") != "FAKE-team" {
			t.Errorf("%s without the header", r.Method)
		}
	}
	s.Headers = nil
	if _, err := list(t, s, tok); !errors.Is(err, tools.ErrUnreachable) || errors.Is(err, access.ErrReauth) {
		t.Errorf("a 401: %v", err)
	}
	if len(tok.demands) != 0 {
		t.Error("it was asked for an access token")
	}
}

// The bearer takes the place of an Authorization header of the directory.
func TestTheBearerWins(t *testing.T) {
	seen := &seen{}
	s := oauth(starts(t, seen.watching(streamable(4, nil), "FAKE-at-1")))
	s.Headers = map[string]core.Secret{"Authorization": "Bearer FAKE-static"}
	got, err := list(t, s, &tokens{})
	holds(t, got, err, 4)
}

// What Token and Find return is returned as it is.
func TestWhatIsNotTheServers(t *testing.T) {
	s := oauth("http://127.0.0.1:1/mcp")
	if _, err := list(t, s, &tokens{err: access.ErrReauth}); !errors.Is(err, access.ErrReauth) {
		t.Error(err)
	}
	service := tools.NewService(&tokens{}, s, local, "test")
	if _, err := service.List(t.Context(), access.Key{UserID: 7, MCPServerID: "other"}, nil); !errors.Is(err, servers.ErrNotFound) {
		t.Error(err)
	}
}
