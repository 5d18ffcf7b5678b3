package httpapi

import (
	"strings"
	"unicode/utf8"

	"github.com/lockwood-kms/lockwood/httpapi/internal/wire"
)

// The routes, by the names that they have in logs and metrics.
const (
	routeHealth      = "/health"
	routeCredentials = "/mcp-oauth-credentials"
	routeCredential  = "/mcp-oauth-credentials/:mcpServerId"
	routeAccessToken = "/mcp-oauth-credentials/:mcpServerId/access-token"
	routeTools       = "/list-mcp-tools"
	routeExchange    = "/oauth/token"
	routeOther       = "other"
)

// targetPath returns the path of a request target as it was sent: undecoded, so
// that an encoded slash stays one, and without query or fragment.
func targetPath(target string) string {
	if !strings.HasPrefix(target, "/") {
		if _, rest, ok := strings.Cut(target, "://"); ok { // absolute form
			authority := strings.IndexAny(rest, "/?#")
			if authority < 0 || rest[authority] != '/' {
				return "/"
			}
			target = rest[authority:]
		}
	}
	if end := strings.IndexAny(target, "?#"); end >= 0 {
		target = target[:end]
	}
	return target
}

// accessTokenEnd is what follows the MCP server ID in routeAccessToken.
const accessTokenEnd = "/access-token"

// matchRoute finds the route of a path and, for routeCredential and routeAccessToken,
// the MCP server ID in it, decoded. Paths ignore case and one trailing slash; /health does not.
func matchRoute(path string) (route, mcpServerID string) {
	if path == routeHealth {
		return routeHealth, ""
	}
	for _, route := range []string{routeTools, routeExchange} {
		if strings.EqualFold(strings.TrimSuffix(path, "/"), route) {
			return route, ""
		}
	}
	if len(path) < len(routeCredentials) || !strings.EqualFold(path[:len(routeCredentials)], routeCredentials) {
		return routeOther, ""
	}
	rest := path[len(routeCredentials):]
	if rest == "" || rest == "/" {
		return routeCredentials, ""
	}
	route = routeCredential
	id, ok := strings.CutPrefix(strings.TrimSuffix(rest, "/"), "/")
	if end := len(id) - len(accessTokenEnd); end > 0 && strings.EqualFold(id[end:], accessTokenEnd) {
		route, id = routeAccessToken, id[:end]
	}
	if !ok || id == "" || strings.Contains(id, "/") {
		return routeOther, ""
	}
	return route, decodeComponent(fromLatin1(id))
}

// fromLatin1 reads a request target the way Node.js does: a byte is a character.
func fromLatin1(s string) string {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			var b strings.Builder
			for j := range len(s) {
				b.WriteRune(rune(s[j]))
			}
			return b.String()
		}
	}
	return s
}

// decodeComponent decodes percent escapes, once. If one of them is not an escape,
// or the result is not UTF-8, the whole is literal.
func decodeComponent(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if !wire.IsEscape(s[i:]) {
			return s
		}
		b = append(b, unhex(s[i+1])<<4|unhex(s[i+2]))
		i += 2
	}
	if !utf8.Valid(b) {
		return s
	}
	return string(b)
}

// unhex returns the value of a hexadecimal digit.
func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
