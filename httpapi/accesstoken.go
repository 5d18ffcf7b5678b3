package httpapi

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/core"
)

// AccessTokens is what the route of access tokens works on; *access.Service is one.
type AccessTokens interface {
	// Token returns an access token for the credential.
	Token(ctx context.Context, key access.Key, demand access.Demand) (*access.Token, error)
}

const (
	// tokenTimeout is how long a request for an access token waits for one, which is
	// less than RequestTimeout, so that the answer says what it waited for.
	tokenTimeout = 25 * time.Second
	// maxValidity is the largest minValiditySeconds.
	maxValidity = 300
)

// accessToken answers POST /mcp-oauth-credentials/:mcpServerId/access-token.
func (s *Server) accessToken(x *exchange) response {
	if x.caller.byCookie {
		// A page in a browser has no use for an access token, and a cookie comes along
		// with what other pages send.
		x.denial = denialCookie
		return unauthorized
	}
	demand, refused := parseDemand(x)
	if refused != nil {
		return *refused
	}
	// No credential has such an ID.
	if !canBeID(x.server) {
		return needsReauth(x.server)
	}
	ctx, cancel := context.WithTimeout(x.Context(), tokenTimeout)
	defer cancel()
	token, err := s.opts.AccessTokens.Token(ctx, access.Key{UserID: x.caller.userID, MCPServerID: x.server}, *demand)
	if err != nil {
		return s.noToken(x, err)
	}
	return tokenResponse(token, s.opts.Now())
}

// demandJSON is the body of a request for an access token.
type demandJSON struct {
	RejectedToken      jsontext.Value `json:"rejectedToken"`
	MinValiditySeconds jsontext.Value `json:"minValiditySeconds"`
}

// parseDemand reads the body, which may be absent.
func parseDemand(x *exchange) (*access.Demand, *response) {
	if kindOf(x.Header.Get("Content-Type")) != bodyJSON {
		return &access.Demand{}, nil
	}
	text, refused := readBody(x.Request, x.claim, maxJSON)
	if refused != nil {
		return nil, refused
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return &access.Demand{}, nil
	}
	var body demandJSON
	err := json.Unmarshal(text, &body, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true), json.RejectUnknownMembers(true))
	unknown := errors.Is(err, json.ErrUnknownName)
	if err != nil && !unknown {
		return nil, &malformed
	}
	demand, is := body.demand()
	if unknown {
		is.unrecognized(1)
	}
	if len(is) > 0 {
		resp := is.response()
		return nil, &resp
	}
	return demand, nil
}

// demand judges the fields.
func (b *demandJSON) demand() (*access.Demand, issues) {
	var is issues
	d := &access.Demand{}
	if v := b.RejectedToken; len(v) > 0 {
		var token string
		if v.Kind() != '"' || json.Unmarshal(v, &token, jsontext.AllowInvalidUTF8(true)) != nil || token == "" {
			is.add("rejectedToken", "must be a string of at least 1 character")
		}
		d.Rejected = core.Secret(token)
	}
	if v := b.MinValiditySeconds; len(v) > 0 {
		seconds, err := strconv.ParseUint(string(v), 10, 16)
		if err != nil || seconds > maxValidity {
			is.add("minValiditySeconds", "must be a whole number from 0 to "+strconv.Itoa(maxValidity))
		}
		d.MinValidity = time.Duration(seconds) * time.Second
	}
	return d, is
}

// tokenJSON is the answer with an access token. What is not known is null.
type tokenJSON struct {
	AccessToken string  `json:"accessToken"`
	TokenType   string  `json:"tokenType"`
	ExpiresIn   *int64  `json:"expiresIn"`
	ExpiresAt   *string `json:"expiresAt"`
	Scope       *string `json:"scope"`
}

func tokenResponse(token *access.Token, now time.Time) response {
	body := tokenJSON{AccessToken: string(token.AccessToken), TokenType: "Bearer", Scope: token.Scope}
	if in := token.ExpiresIn; in != nil {
		seconds := int64(math.Floor(in.Seconds()))
		at := now.Add(time.Duration(seconds) * time.Second).UTC().Format(time.RFC3339)
		body.ExpiresIn, body.ExpiresAt = &seconds, &at
	}
	text, err := json.Marshal(body, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return internal
	}
	return jsonResponse(http.StatusOK, string(text))
}

// needsReauth is upstream's answer to a client whose user has to connect again.
func needsReauth(server string) response {
	return jsonResponse(http.StatusConflict, `{"awaitingInputReason":"needs-oauth-reauth","mcpServerId":`+quote(server)+`}`)
}

// The answers to a grant that failed.
var (
	endpointRefused     = jsonResponse(http.StatusBadRequest, `{"code":"token_endpoint_refused"}`)
	endpointFailed      = jsonResponse(http.StatusBadGateway, `{"code":"token_endpoint_failed"}`)
	endpointUnavailable = jsonResponse(http.StatusServiceUnavailable, `{"code":"token_endpoint_unavailable"}`)
)

// noToken is the answer where there is no access token.
func (s *Server) noToken(x *exchange, err error) response {
	failed, isGrant := errors.AsType[*access.GrantError](err)
	retry, _ := errors.AsType[*access.RetryError](err)
	var resp response
	switch {
	case errors.Is(err, access.ErrReauth):
		return needsReauth(x.server)
	case isGrant:
		resp = grantFailed(failed)
	case errors.Is(err, access.ErrTooMany):
		resp = tooMany.after(max(retry.After, time.Second))
	case errors.Is(err, access.ErrBusy):
		resp = busy
	case errors.Is(err, access.ErrWaiting):
		resp = endpointUnavailable.after(max(retry.After, time.Second))
	default:
		return s.failed(x, err)
	}
	s.opts.Logger.LogAttrs(x.Context(), slog.LevelInfo, "no access token", slog.Int64("user_id", x.caller.userID), slog.Any("error", err))
	return resp
}

func grantFailed(err *access.GrantError) response {
	switch {
	case err.Refused():
		return endpointRefused
	case err.Failed():
		return endpointFailed
	}
	return endpointUnavailable.after(max(err.After, time.Second))
}
