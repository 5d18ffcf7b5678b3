package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/oauth2"

	"github.com/lockwood-kms/lockwood/core"
)

// Demand says what an access token has to be. The zero value takes the one that there is.
type Demand struct {
	// Rejected is a token that the MCP server answered with 401. It is not given out again,
	// and if it is the current one, another is fetched: at most twice in a minute.
	Rejected core.Secret
	// MinValidity is how long the token has to be valid still, in whole seconds (rounded
	// up), at most 5 minutes. One that is fetched for this call satisfies it.
	MinValidity time.Duration
}

// Token is an access token, of type Bearer.
type Token struct {
	AccessToken core.Secret
	// Expiry is when it ends, by the clock of this machine, or zero if the token endpoint
	// does not say.
	Expiry time.Time
	// Scope is what the token endpoint said that it is for, or "".
	Scope string
}

// AccessToken returns an access token of the user's for the MCP server. A nil demand is
// an empty one. The error is ErrNeedsReauth if the user has to connect again, and see
// the other Err variables.
func (c *Client) AccessToken(ctx context.Context, mcpServerID string, demand *Demand) (*Token, error) {
	const doing = "getting an access token"
	path, err := pathOf(mcpServerID)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	var body struct {
		Rejected    string `json:"rejectedToken,omitempty"`
		MinValidity int64  `json:"minValiditySeconds,omitempty"`
	}
	if demand != nil {
		body.Rejected = string(demand.Rejected)
		body.MinValidity = int64((demand.MinValidity + time.Second - 1) / time.Second)
	}
	var answer struct {
		AccessToken string  `json:"accessToken"`
		TokenType   string  `json:"tokenType"`
		ExpiresIn   *int64  `json:"expiresIn"`
		Scope       *string `json:"scope"`
	}
	asked := time.Now()
	if err := c.call(ctx, doing, http.MethodPost, path+"/access-token", &body, &answer); err != nil {
		return nil, err
	}
	if answer.AccessToken == "" || answer.TokenType != "Bearer" {
		return nil, errors.New(doing + ": the answer has none: is this the URL of Lockwood?")
	}
	token := &Token{AccessToken: core.Secret(answer.AccessToken)}
	if answer.ExpiresIn != nil {
		// Not expiresAt, which is by Lockwood's clock.
		token.Expiry = asked.Add(time.Duration(*answer.ExpiresIn) * time.Second)
	}
	if answer.Scope != nil {
		token.Scope = *answer.Scope
	}
	return token, nil
}

// TokenSource returns an oauth2.TokenSource of the user's tokens for the MCP server. Each
// call of Token asks Lockwood, with ctx. Do not wrap it in oauth2.ReuseTokenSource, as
// oauth2.NewClient does: that goes on with a token after the user disconnected or the
// server rejected it, and for ever with one whose end is not known. For an http.Client
// there is Client.Transport.
func (c *Client) TokenSource(ctx context.Context, mcpServerID string) oauth2.TokenSource {
	return &tokenSource{ctx: ctx, client: c, mcpServerID: mcpServerID}
}

type tokenSource struct {
	ctx         context.Context //nolint:containedctx // the interface's method takes none
	client      *Client
	mcpServerID string
}

// Token implements oauth2.TokenSource.
func (s *tokenSource) Token() (*oauth2.Token, error) {
	token, err := s.client.AccessToken(s.ctx, s.mcpServerID, nil)
	if err != nil {
		return nil, err
	}
	return &oauth2.Token{AccessToken: string(token.AccessToken), TokenType: "Bearer", Expiry: token.Expiry}, nil
}
