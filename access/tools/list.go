package tools

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/lockwood-kms/lockwood/access/servers"
	"github.com/lockwood-kms/lockwood/core"
)

// The reasons for which a listing ends early.
var (
	errUnauthorized = errors.New("the MCP server answered 401")
	errOrigin       = errors.New("it names an address of another origin")
	errTooLong      = fmt.Errorf("it answered with more than %d bytes", MaxBytes)
	errTooMany      = fmt.Errorf("it has more than %d tools, or %d pages of them", MaxTools, maxPages)
	errOver         = errors.New("the listing is over")
)

// list lists the tools with one access token, or with none if bearer is "".
func (s *Service) list(ctx context.Context, server *servers.Server, bearer core.Secret, reserve func(int64) bool) ([]Tool, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := s.connect(ctx, server, bearer, reserve)
	if err != nil {
		return nil, err
	}
	defer w.close()
	client := &http.Client{
		Transport:     w,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	var transport mcp.Transport = &mcp.StreamableClientTransport{
		Endpoint: server.URL, HTTPClient: client, DisableStandaloneSSE: true, MaxRetries: 2, MaxEventSize: MaxBytes,
	}
	events := &mcp.SSEClientTransport{Endpoint: server.URL, HTTPClient: client, MaxEventSize: MaxBytes}
	if server.Transport == servers.SSE {
		transport = events
	}
	tools, err := s.tools(ctx, transport)
	if err != nil && server.Transport == servers.HTTP && w.isOlder() {
		// "Backwards Compatibility" of the protocol's transports.
		tools, err = s.tools(ctx, events)
	}
	if err != nil {
		return nil, w.reason(ctx, err)
	}
	return tools, nil
}

func (s *Service) connect(ctx context.Context, server *servers.Server, bearer core.Secret, reserve func(int64) bool) (*wire, error) {
	origin, err := url.Parse(server.URL)
	if err != nil {
		return nil, ErrUnreachable // err quotes the URL
	}
	if reserve == nil {
		reserve = func(int64) bool { return true }
	}
	return newWire(ctx, origin, s.egress, server.Headers, bearer, reserve), nil
}

// tools opens a session, and reads all pages. Its errors may quote the server.
func (s *Service) tools(ctx context.Context, transport mcp.Transport) ([]Tool, error) {
	client := mcp.NewClient(&mcp.Implementation{Name: "lockwood", Version: s.version}, &mcp.ClientOptions{
		Logger: slog.New(slog.DiscardHandler), Capabilities: &mcp.ClientCapabilities{},
	})
	session, err := client.Connect(ctx, transport, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = session.Close() }()
	tools := []Tool{}
	var cursor string
	for range maxPages {
		page, err := session.ListTools(ctx, &mcp.ListToolsParams{Cursor: cursor})
		if err != nil {
			return nil, err
		}
		for _, t := range page.Tools {
			tools = append(tools, Tool{t.Name, t.Description})
		}
		if len(tools) > MaxTools {
			return nil, errTooMany
		}
		if cursor = page.NextCursor; cursor == "" {
			return tools, nil
		}
	}
	return nil, errTooMany
}
