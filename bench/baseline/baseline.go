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

// insert and update are the upsert into the table that Lockwood writes to, around where
// the values come from.
const (
	insert = `
INSERT INTO forest.ai_mcp_oauth_credentials AS c (
	user_id, mcp_server_id, refresh_token_enc, client_id, token_endpoint,
	token_endpoint_auth_method, scopes, created_at, updated_at
) `
	update = `
ON CONFLICT (user_id, mcp_server_id) DO UPDATE SET
	id = excluded.id, refresh_token_enc = excluded.refresh_token_enc, client_id = excluded.client_id,
	token_endpoint = excluded.token_endpoint, token_endpoint_auth_method = excluded.token_endpoint_auth_method,
	scopes = excluded.scopes, created_at = excluded.created_at, updated_at = excluded.updated_at`

	upsert  = insert + `VALUES ($1, $2, $3, $4, $5, $6, $7, now(), now())` + update
	locking = `WITH data_key AS (SELECT FROM forest.lockwood_data_keys WHERE key_id = $8 AND state = 'enabled' FOR KEY SHARE)` +
		insert + `SELECT $1, $2, $3, $4, $5, $6, $7, now(), now() WHERE EXISTS (SELECT FROM data_key)` + update
)

// handler upserts every deposit for one user.
type handler struct {
	pool    *pgxpool.Pool
	locking bool
}

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var d deposit
	if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	const user = 1
	secret := append(make([]byte, envelope.Overhead, envelope.Overhead+len(d.RefreshToken)), d.RefreshToken...)
	sql, args := upsert, []any{user, d.MCPServerID, secret, d.ClientID, d.TokenEndpoint, d.TokenEndpointAuthMethod, d.Scopes}
	if h.locking {
		sql, args = locking, append(args, DataKey[:])
	}
	_, err := h.pool.Exec(r.Context(), sql, args...)
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"stored":true}`))
}
