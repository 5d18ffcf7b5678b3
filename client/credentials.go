package client

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/lockwood-kms/lockwood/core"
)

// Deposit is a credential as it is handed over: what an OAuth flow came to, of a user
// with an MCP server.
type Deposit struct {
	MCPServerID   string      // required; 1 to 255 characters
	RefreshToken  core.Secret // required
	TokenEndpoint string      // required; an https URL

	ClientID     string      // required with ClientSecret
	ClientSecret core.Secret // "" for a public client
	// ClientSecretExpiresAt is when the secret ends, to the millisecond, or zero.
	ClientSecretExpiresAt time.Time
	// TokenEndpointAuthMethod is client_secret_basic, client_secret_post or none, or "" for
	// Basic if there is a secret.
	TokenEndpointAuthMethod string
	Scopes                  string // separated by spaces
}

// Deposit stores the user's credential for d's MCP server, in place of the one that was
// there. It is durable when Deposit returns nil. Lockwood keeps the refresh token from
// here on: it presents and replaces it, so that nobody else may.
func (c *Client) Deposit(ctx context.Context, d *Deposit) error {
	body := struct {
		MCPServerID             string `json:"mcpServerId"`
		RefreshToken            string `json:"refreshToken"`
		TokenEndpoint           string `json:"tokenEndpoint"`
		ClientID                string `json:"clientId,omitempty"`
		ClientSecret            string `json:"clientSecret,omitempty"`
		ClientSecretExpiresAt   string `json:"clientSecretExpiresAt,omitempty"`
		TokenEndpointAuthMethod string `json:"tokenEndpointAuthMethod,omitempty"`
		Scopes                  string `json:"scopes,omitempty"`
	}{
		MCPServerID: d.MCPServerID, RefreshToken: string(d.RefreshToken), TokenEndpoint: d.TokenEndpoint,
		ClientID: d.ClientID, ClientSecret: string(d.ClientSecret),
		TokenEndpointAuthMethod: d.TokenEndpointAuthMethod, Scopes: d.Scopes,
	}
	if !d.ClientSecretExpiresAt.IsZero() {
		body.ClientSecretExpiresAt = d.ClientSecretExpiresAt.UTC().Format("2006-01-02T15:04:05.000Z")
	}
	return c.call(ctx, "depositing a credential", http.MethodPost, routeCredentials, &body, nil)
}

// Credential is what Lockwood says of a credential, which is nothing secret. Strings that
// were not deposited are "".
type Credential struct {
	MCPServerID             string
	ClientID                string
	HasClientSecret         bool
	ClientSecretExpiresAt   time.Time // zero if it is not known
	TokenEndpoint           string
	TokenEndpointAuthMethod string
	Scopes                  string
	CreatedAt, UpdatedAt    time.Time
	// State is connected, needs_reauth or failing, or "" if this Lockwood does not say.
	State string
	// LastRefreshedAt is the last grant, and AccessTokenExpiresAt the end of the stored
	// access token; zero if there is none.
	LastRefreshedAt, AccessTokenExpiresAt time.Time
}

// credentialJSON is a credential in Lockwood's answer.
type credentialJSON struct {
	MCPServerID             string  `json:"mcpServerId"`
	ClientID                string  `json:"clientId"`
	HasClientSecret         bool    `json:"hasClientSecret"`
	ClientSecretExpiresAt   isoTime `json:"clientSecretExpiresAt"`
	TokenEndpoint           string  `json:"tokenEndpoint"`
	TokenEndpointAuthMethod string  `json:"tokenEndpointAuthMethod"`
	Scopes                  string  `json:"scopes"`
	CreatedAt               isoTime `json:"createdAt"`
	UpdatedAt               isoTime `json:"updatedAt"`
	State                   string  `json:"state"`
	LastRefreshedAt         isoTime `json:"lastRefreshedAt"`
	AccessTokenExpiresAt    isoTime `json:"accessTokenExpiresAt"`
}

// List returns the user's credentials, by server ID.
func (c *Client) List(ctx context.Context) ([]Credential, error) {
	var answer struct {
		Credentials []credentialJSON `json:"credentials"`
	}
	if err := c.call(ctx, "listing credentials", http.MethodGet, routeCredentials, nil, &answer); err != nil {
		return nil, err
	}
	list := make([]Credential, 0, len(answer.Credentials))
	for _, j := range answer.Credentials {
		list = append(list, Credential{
			MCPServerID: j.MCPServerID, ClientID: j.ClientID, HasClientSecret: j.HasClientSecret,
			ClientSecretExpiresAt: j.ClientSecretExpiresAt.Time,
			TokenEndpoint:         j.TokenEndpoint, TokenEndpointAuthMethod: j.TokenEndpointAuthMethod, Scopes: j.Scopes,
			CreatedAt: j.CreatedAt.Time, UpdatedAt: j.UpdatedAt.Time,
			State: j.State, LastRefreshedAt: j.LastRefreshedAt.Time, AccessTokenExpiresAt: j.AccessTokenExpiresAt.Time,
		})
	}
	return list, nil
}

// Disconnect removes the user's credential for the MCP server, if there is one.
func (c *Client) Disconnect(ctx context.Context, mcpServerID string) error {
	const doing = "disconnecting"
	path, err := pathOf(mcpServerID)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return c.call(ctx, doing, http.MethodDelete, path, nil, nil)
}

// isoTime is a time as JavaScript's toISOString writes it, whose years beyond 9999, and
// before 0, have a sign and six digits; null is zero.
type isoTime struct{ time.Time }

// UnmarshalJSON implements json.Unmarshaler.
func (t *isoTime) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		return nil
	}
	s, err := strconv.Unquote(string(text))
	if err != nil {
		return err
	}
	if len(s) < 8 || s[0] != '+' && s[0] != '-' {
		t.Time, err = time.Parse(time.RFC3339, s)
		return err
	}
	year, err := strconv.Atoi(s[:7])
	if err != nil {
		return err
	}
	// 2000 is a leap year, as each year may be.
	day, err := time.Parse(time.RFC3339, "2000"+s[7:])
	if err != nil {
		return err
	}
	t.Time = time.Date(year, day.Month(), day.Day(), day.Hour(), day.Minute(), day.Second(), day.Nanosecond(), time.UTC)
	return nil
}
