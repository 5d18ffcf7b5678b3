package load

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// TokenSize is the length of the refresh token that is deposited, in bytes.
const TokenSize = 1 << 10

// Token returns a token of user that secret signs.
func Token(secret string, user int) (string, error) {
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"id": user, "exp": time.Now().Add(24 * time.Hour).Unix(),
	}).SignedString([]byte(secret))
	if err != nil {
		return "", fmt.Errorf("signing token: %w", err)
	}
	return token, nil
}

// Deposit returns the bytes of a request that deposits a credential of user for
// server, with a token that secret signs.
func Deposit(secret string, user int, server string) ([]byte, error) {
	token, err := Token(secret, user)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(map[string]string{
		"mcpServerId":             server,
		"refreshToken":            strings.Repeat("0123456789abcdef", TokenSize/16),
		"clientId":                "bench-client",
		"tokenEndpoint":           "https://auth.example.com/oauth/token",
		"tokenEndpointAuthMethod": "none",
		"scopes":                  "read write",
	})
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequest(http.MethodPost, "http://bench.example.com/mcp-oauth-credentials", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		return nil, fmt.Errorf("writing request: %w", err)
	}
	return b.Bytes(), nil
}
