package baseline

import (
	"encoding/json"
	"net/http"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockwood-kms/lockwood/core/envelope"
)

// deposit is the body of a request.
type deposit struct {
	MCPServerID             string  `json:"mcpServerId"`
	RefreshToken            string  `json:"refreshToken"`
	ClientID                *string `json:"clientId"`
	TokenEndpoint           string  `json:"tokenEndpoint"`
	TokenEndpointAuthMethod *string `json:"tokenEndpointAuthMethod"`
	Scopes                  *string `json:"scopes"`
}

// upsert writes into the same table as Lockwood does.
const upsert = `
INSERT INTO forest.ai_mcp_oauth_credentials AS c (
	user_id, mcp_server_id, refresh_token_enc, client_id, token_endpoint,
	token_endpoint_auth_method, scopes, created_at, updated_at
) VALUES ($1, $2, $3, $4, $5, $6, $7, now(), now())
ON CONFLICT (user_id, mcp_server_id) DO UPDATE SET
	id = excluded.id, refresh_token_enc = excluded.refresh_token_enc, client_id = excluded.client_id,
	token_endpoint = excluded.token_endpoint, token_endpoint_auth_method = excluded.token_endpoint_auth_method,
	scopes = excluded.scopes, created_at = excluded.created_at, updated_at = excluded.updated_at`

// handler upserts every deposit for one user.
type handler struct{ pool *pgxpool.Pool }

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var d deposit
	if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	const user = 1
	secret := append(make([]byte, envelope.Overhead, envelope.Overhead+len(d.RefreshToken)), d.RefreshToken...)
	_, err := h.pool.Exec(r.Context(), upsert, user, d.MCPServerID, secret, d.ClientID, d.TokenEndpoint, d.TokenEndpointAuthMethod, d.Scopes)
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"stored":true}`))
}
