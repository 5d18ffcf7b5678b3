package httpapi

import (
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/lockwood-kms/lockwood/credential"
)

// deposit answers POST /mcp-oauth-credentials.
func (s *Server) deposit(x *exchange, body *fields) response {
	// A browser sends a form to any origin without asking, and adds the cookie.
	// JSON it sends elsewhere only after a preflight, which is never granted.
	if body.isForm && x.caller.byCookie && new(http.CrossOriginProtection).Check(x.Request) != nil {
		return crossOrigin
	}
	d, issues := body.deposit(s.endpoints)
	if len(issues) > 0 {
		return issues.response()
	}
	if err := s.credentials.Deposit(x.Context(), x.caller.userID, d); err != nil {
		return s.failed(x, err)
	}
	return stored
}

// disconnect answers DELETE /mcp-oauth-credentials/:mcpServerId, whether or not
// there is such a credential.
func (s *Server) disconnect(x *exchange) response {
	if strings.IndexByte(x.server, 0) >= 0 {
		return noContent // no credential has such an ID, and PostgreSQL no such text
	}
	if err := s.credentials.Disconnect(x.Context(), x.caller.userID, x.server); err != nil {
		return s.failed(x, err)
	}
	return noContent
}

// credentialJSON is a credential in the answer to GET /mcp-oauth-credentials.
// Absent values are null.
type credentialJSON struct {
	MCPServerID             string  `json:"mcpServerId"`
	ClientID                *string `json:"clientId"`
	HasClientSecret         bool    `json:"hasClientSecret"`
	ClientSecretExpiresAt   *string `json:"clientSecretExpiresAt"`
	TokenEndpoint           string  `json:"tokenEndpoint"`
	TokenEndpointAuthMethod *string `json:"tokenEndpointAuthMethod"`
	Scopes                  *string `json:"scopes"`
	CreatedAt               string  `json:"createdAt"`
	UpdatedAt               string  `json:"updatedAt"`
}

func newCredentialJSON(m *credential.Metadata) credentialJSON {
	c := credentialJSON{
		MCPServerID:             m.MCPServerID,
		ClientID:                m.ClientID,
		HasClientSecret:         m.HasClientSecret,
		TokenEndpoint:           m.TokenEndpoint,
		TokenEndpointAuthMethod: m.TokenEndpointAuthMethod,
		Scopes:                  m.Scopes,
		CreatedAt:               isoMillis(m.CreatedAt),
		UpdatedAt:               isoMillis(m.UpdatedAt),
	}
	if m.ClientSecretExpiresAt != nil {
		expires := isoMillis(*m.ClientSecretExpiresAt)
		c.ClientSecretExpiresAt = &expires
	}
	return c
}

// list answers GET /mcp-oauth-credentials: the caller's own, and nothing secret.
func (s *Server) list(x *exchange) response {
	var answer struct {
		Credentials []credentialJSON `json:"credentials"`
	}
	for page, err := range s.credentials.List(x.Context(), x.caller.userID) {
		if err != nil {
			return s.failed(x, err)
		}
		for i := range page {
			answer.Credentials = append(answer.Credentials, newCredentialJSON(&page[i]))
		}
	}
	// A row that another program wrote may hold what is not UTF-8.
	text, err := json.Marshal(answer, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return s.failed(x, err)
	}
	return jsonResponse(http.StatusOK, string(text))
}
