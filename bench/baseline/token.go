package baseline

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// readToken is one read by the key of the table in which Lockwood keeps access tokens.
const readToken = `SELECT access_token_enc, expires_at FROM forest.lockwood_access_tokens WHERE user_id = $1 AND mcp_server_id = $2`

// tokens gives out what is stored for the user and the server. It verifies the user's
// token, and opens nothing.
type tokens struct {
	pool   *pgxpool.Pool
	secret []byte
}

// claims are those of a user's token.
type claims struct {
	ID int64 `json:"id"`
	jwt.RegisteredClaims
}

func (h tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var c claims
	bearer := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	_, err := jwt.ParseWithClaims(bearer, &c, func(*jwt.Token) (any, error) { return h.secret, nil }, jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired())
	if err != nil {
		http.Error(w, "unauthorized", http.StatusUnauthorized)
		return
	}
	server := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/mcp-oauth-credentials/"), "/access-token")
	var token []byte
	var expires time.Time
	if err := h.pool.QueryRow(r.Context(), readToken, c.ID, server).Scan(&token, &expires); err != nil {
		http.Error(w, "not found", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"accessToken": string(token), "tokenType": "Bearer", "expiresIn": int(time.Until(expires).Seconds()), "expiresAt": expires, "scope": nil,
	})
}
