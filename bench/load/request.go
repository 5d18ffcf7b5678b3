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
	return DepositAt(secret, user, server, "https://auth.example.com/oauth/token")
}

// DepositAt is Deposit of a credential with the token endpoint.
func DepositAt(secret string, user int, server, endpoint string) ([]byte, error) {
	body, err := json.Marshal(map[string]string{
		"mcpServerId":             server,
		"refreshToken":            strings.Repeat("0123456789abcdef", TokenSize/16),
		"clientId":                "bench-client",
		"tokenEndpoint":           endpoint,
		"tokenEndpointAuthMethod": "none",
		"scopes":                  "read write",
	})
	if err != nil {
		return nil, err
	}
	return post(secret, user, "/mcp-oauth-credentials", body)
}

// AccessToken returns the bytes of a request for an access token of user for server, with a
// token that secret signs.
func AccessToken(secret string, user int, server string) ([]byte, error) {
	return post(secret, user, "/mcp-oauth-credentials/"+server+"/access-token", nil)
}

func post(secret string, user int, path string, body []byte) ([]byte, error) {
	token, err := Token(secret, user)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequest(http.MethodPost, "http://bench.example.com"+path, bytes.NewReader(body))
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
