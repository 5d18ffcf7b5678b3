package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/servers"
	"github.com/lockwood-kms/lockwood/access/tools"
)

// Tools is what the route of tools works on; *tools.Service is one.
type Tools interface {
	// List returns the tools of an MCP server as the user sees them. It asks reserve for
	// memory.
	List(ctx context.Context, key access.Key, reserve func(bytes int64) bool) ([]tools.Tool, error)
}

// The answers of upstream.
var (
	noServerID     = errorResponse(http.StatusBadRequest, `Missing required query parameter "mcpServerId"`)
	couldNotGrant  = errorResponse(http.StatusBadRequest, "Could not refresh the connection to this tool. Please try again.")
	misconfigured  = errorResponse(http.StatusBadRequest, "This tool is misconfigured (invalid token endpoint). Contact your administrator.")
	noToolsReached = errorResponse(http.StatusServiceUnavailable, "The MCP server could not be reached to list its tools")
)

// serversUnavailable is the answer while Forest has never listed the servers.
var serversUnavailable = jsonResponse(http.StatusServiceUnavailable, `{"code":"mcp_servers_unavailable"}`).after(5 * time.Second)

func unknownServer(id string) response {
	return errorResponse(http.StatusNotFound, `No MCP server is configured for id "`+id+`"`)
}

// listTools answers GET /list-mcp-tools.
func (s *Server) listTools(x *exchange) response {
	var ok bool
	if x.server, ok = serverInQuery(x.RequestURI); !ok {
		return noServerID
	}
	if !canBeID(x.server) {
		return unknownServer(x.server)
	}
	list, err := s.opts.Tools.List(x.Context(), access.Key{UserID: x.caller.userID, MCPServerID: x.server}, func(bytes int64) bool {
		return x.claim.grow(bodyCost * bytes)
	})
	if err != nil {
		return s.noTools(x, err)
	}
	return toolsResponse(list)
}

// canBeID reports whether a credential, or a server of the directory, may have the ID.
func canBeID(id string) bool { return strings.IndexByte(id, 0) < 0 && !longer(id, maxID) }

// serverInQuery returns the one mcpServerId in the query of a request target, which is
// decoded as Node.js does.
func serverInQuery(target string) (id string, ok bool) {
	target, _, _ = strings.Cut(target, "#")
	_, query, _ := strings.Cut(target, "?")
	found := 0
	for pair := range strings.SplitSeq(fromLatin1(query), "&") {
		name, value, _ := strings.Cut(pair, "=")
		if decodeFormComponent(name) == "mcpServerId" {
			id = decodeFormComponent(value)
			found++
		}
	}
	return id, found == 1 && id != ""
}

type toolsJSON struct {
	Tools []toolJSON `json:"tools"`
}

type toolJSON struct {
	Name        string `json:"name"`
	Description string `json:"description"`
}

func toolsResponse(list []tools.Tool) response {
	body := toolsJSON{Tools: make([]toolJSON, len(list))}
	for i, t := range list {
		body.Tools[i] = toolJSON(t)
	}
	text, err := json.Marshal(body, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return internal
	}
	return jsonResponse(http.StatusOK, string(text))
}

// noTools is the answer where there are no tools to list. As with upstream it does not tell
// why a grant failed.
func (s *Server) noTools(x *exchange, err error) response {
	failed, isGrant := errors.AsType[*access.GrantError](err)
	retry, _ := errors.AsType[*access.RetryError](err)
	var resp response
	switch {
	case errors.Is(err, servers.ErrNotFound):
		return unknownServer(x.server)
	case errors.Is(err, servers.ErrUnavailable):
		resp = serversUnavailable
	case errors.Is(err, access.ErrReauth):
		resp = needsReauth(x.server)
	case errors.Is(err, tools.ErrUnreachable):
		resp = noToolsReached
	case errors.Is(err, tools.ErrNoRoom), errors.Is(err, access.ErrBusy):
		resp = busy
	case isGrant && failed.Refused() && s.endpoints.Check(failed.Endpoint) != nil:
		resp = misconfigured
	case isGrant, errors.Is(err, access.ErrWaiting):
		resp = couldNotGrant
	case errors.Is(err, access.ErrTooMany):
		resp = tooMany.after(max(retry.After, time.Second))
	default:
		return s.failed(x, err)
	}
	s.opts.Logger.LogAttrs(x.Context(), slog.LevelInfo, "no tools",
		slog.Int64("user_id", x.caller.userID), slog.String("mcp_server_id", x.server), slog.Any("error", err))
	return resp
}
