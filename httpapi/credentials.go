package httpapi

import (
	"net/http"
	"strings"
)

// deposit answers POST /mcp-oauth-credentials.
func (s *Server) deposit(x *exchange) response {
	kind := kindOf(x.Header.Get("Content-Type"))
	// A browser sends a form to any origin without asking, and adds the cookie.
	// JSON it sends elsewhere only after a preflight, which is never granted.
	if kind == bodyForm && x.caller.byCookie && new(http.CrossOriginProtection).Check(x.Request) != nil {
		return crossOrigin
	}
	body, refused := parseBody(x.Request, kind, x.claim)
	if refused != nil {
		return *refused
	}
	d, issues := body.deposit(s.endpoints)
	if len(issues) > 0 {
		return issues.response()
	}
	err := x.claim.write(x.Context(), func() error { return s.credentials.Deposit(x.Context(), x.caller.userID, d) })
	if err != nil {
		return s.failed(x, err)
	}
	return stored
}

// disconnect answers DELETE /mcp-oauth-credentials/:mcpServerId, whether or not
// there is such a credential.
func (s *Server) disconnect(x *exchange) response {
	// No credential has such an ID, and PostgreSQL no text with NUL.
	if strings.IndexByte(x.server, 0) >= 0 || longer(x.server, maxID) {
		return noContent
	}
	err := x.claim.write(x.Context(), func() error { return s.credentials.Disconnect(x.Context(), x.caller.userID, x.server) })
	if err != nil {
		return s.failed(x, err)
	}
	return noContent
}
