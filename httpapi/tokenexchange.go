package httpapi

import (
	"context"
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/servers"
	"github.com/lockwood-kms/lockwood/httpapi/internal/wire"
)

// Servers finds MCP servers by their resource; *servers.Directory does.
type Servers interface {
	// FindResource returns the servers that the URI is of.
	FindResource(ctx context.Context, uri string) ([]*servers.Server, error)
}

// maxExchange is the longest body of a token exchange, in bytes: whoever sends it has shown
// no token yet. A subject token has at most as much as a head could hold.
const maxExchange = 32 << 10

// maxTargets is how many audiences and resources a request may have: the directory is
// asked for each resource.
const maxTargets = 8

// nobody is the user in whose share requests are counted until their token is known. No
// token names it.
const nobody = 0

// The identifiers of RFC 8693, sections 2.1 and 3.
const (
	grantTokenExchange   = "urn:ietf:params:oauth:grant-type:token-exchange"
	tokenTypeJWT         = "urn:ietf:params:oauth:token-type:jwt"
	tokenTypeAccessToken = "urn:ietf:params:oauth:token-type:access_token"
)

// oauthError answers as RFC 6749, section 5.2, says. A description is one of ours, never of
// the client's.
func oauthError(status int, code, description string) response {
	if description != "" {
		description = `,"error_description":` + quote(description)
	}
	return jsonResponse(status, `{"error":`+quote(code)+description+`}`)
}

func invalidRequest(description string) response {
	return oauthError(http.StatusBadRequest, "invalid_request", description)
}

func invalidTarget(description string) response {
	return oauthError(http.StatusBadRequest, "invalid_target", description)
}

// exchangeToken answers POST /oauth/token, by RFC 8693. Its caller is the subject of the
// subject token; what else would authenticate, a header, a cookie, a client's ID and
// secret, is not looked at.
func (s *Server) exchangeToken(x *exchange) response {
	if x.claim = s.shares.enter(nobody); x.claim == nil {
		return notRead(tooMany.after(time.Second))
	}
	p, refused := s.identify(x)
	held := x.claim.bytes
	x.claim.leave() // a refused request holds nothing of nobody's while its answer is written
	x.claim = nil
	if refused != nil {
		return *refused
	}
	if wait := s.limiter.wait(x.caller.userID); wait > 0 {
		return notRead(tooMany.after(wait))
	}
	if x.claim = s.shares.enter(x.caller.userID); x.claim == nil {
		return notRead(tooMany.after(time.Second))
	}
	wire.Vouch(x.Context())
	if x.claim.wait(x.Context(), held) != nil {
		return notRead(busy)
	}
	if x.server, refused = s.targetOf(x, p); refused != nil {
		return *refused
	}
	ctx, cancel := context.WithTimeout(x.Context(), tokenTimeout)
	defer cancel()
	token, err := s.opts.AccessTokens.Token(ctx, access.Key{UserID: x.caller.userID, MCPServerID: x.server}, access.Demand{})
	if err != nil {
		return s.notExchanged(x, err)
	}
	if scope := p.one["scope"]; scope != "" && (token.Scope == nil || !sameScope(scope, *token.Scope)) {
		return oauthError(http.StatusBadRequest, "invalid_scope", "the scope is not the one that the credential was granted")
	}
	return exchanged(token)
}

// identify reads the parameters, and makes the subject the caller.
func (s *Server) identify(x *exchange) (*parameters, *response) {
	p, refused := readParameters(x, s.strangers)
	if refused != nil {
		return nil, refused
	}
	if refused = p.judge(); refused != nil {
		return nil, refused
	}
	if x.caller.userID, x.denial = s.auth.userID(p.one["subject_token"]); x.denial != denialNone {
		resp := invalidRequest("the subject token is not valid")
		return nil, &resp
	}
	return p, nil
}

// parameters are those of a token request. Without a value they are absent.
type parameters struct {
	one                 map[string]string // of those that may come once
	audience, resources []string
	twice, many         bool
}

// single are the parameters that may come once and matter. Others are ignored.
var single = []string{"grant_type", "subject_token", "subject_token_type", "requested_token_type", "actor_token", "actor_token_type", "scope"}

// readParameters reads the parameters from the body.
func readParameters(x *exchange, s *strangers) (*parameters, *response) {
	if kindOf(x.Header.Get("Content-Type")) != bodyForm {
		resp := invalidRequest("the body is not application/x-www-form-urlencoded")
		return nil, &resp
	}
	text, refused := readForm(x, s)
	if refused != nil {
		resp := notRead(*refused)
		return nil, &resp
	}
	p := &parameters{one: make(map[string]string)}
	for pair := range strings.SplitSeq(text, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if value = decodeFormComponent(value); value != "" {
			p.add(decodeFormComponent(name), value)
		}
	}
	return p, nil
}

// readForm reads the body. It is not decompressed, for nobody knows yet whose it is. Its
// refusals are those of the other routes.
func readForm(x *exchange, s *strangers) (string, *response) {
	encoding := strings.Join(x.Header["Content-Encoding"], ", ")
	switch {
	case encoding != "" && encoding != "identity":
		return "", &unknownCode
	case x.ContentLength > maxExchange:
		return "", &tooLarge
	}
	room := int64(firstRead)
	if x.ContentLength >= 0 {
		room = min(room, x.ContentLength)
	}
	ctx, leave := s.enter(x)
	defer leave()
	if x.claim.wait(ctx, bodyCost*(room+1)) != nil {
		return "", &busy
	}
	text, refused := readAll(x.Body, make([]byte, 0, room+1), x.claim, bodyCost, maxExchange)
	if refused == &unreadable && errors.Is(ctx.Err(), context.Canceled) {
		refused = &busy
	}
	if refused != nil {
		return "", refused
	}
	return string(text), nil
}

func (p *parameters) add(name, value string) {
	switch {
	case (name == "audience" || name == "resource") && len(p.audience)+len(p.resources) >= maxTargets:
		p.many = true
	case name == "audience":
		p.audience = append(p.audience, value)
	case name == "resource":
		p.resources = append(p.resources, value)
	case slices.Contains(single, name):
		_, has := p.one[name]
		p.twice = p.twice || has
		p.one[name] = value
	}
}

// judge refuses what is not a request for an access token.
func (p *parameters) judge() *response {
	var resp response
	switch requested := p.one["requested_token_type"]; {
	case p.twice:
		resp = invalidRequest("a parameter comes twice")
	case p.one["grant_type"] == "":
		resp = invalidRequest("grant_type is missing")
	case p.one["grant_type"] != grantTokenExchange:
		resp = oauthError(http.StatusBadRequest, "unsupported_grant_type", "the grant type is not "+grantTokenExchange)
	case p.one["subject_token"] == "":
		resp = invalidRequest("subject_token is missing")
	case p.one["subject_token_type"] != tokenTypeJWT:
		resp = invalidRequest("subject_token_type is not " + tokenTypeJWT)
	case requested != "" && requested != tokenTypeAccessToken:
		resp = invalidRequest("requested_token_type is not " + tokenTypeAccessToken)
	case p.one["actor_token"] != "", p.one["actor_token_type"] != "":
		resp = invalidRequest("there is no acting for somebody")
	case p.many:
		resp = invalidTarget("there are more than " + strconv.Itoa(maxTargets) + " audiences and resources")
	case len(p.audience) == 0 && len(p.resources) == 0:
		resp = invalidTarget("neither audience nor resource names an MCP server")
	default:
		return nil
	}
	return &resp
}

// targetOf returns the ID of the MCP server that all audiences and resources name.
// Audiences are IDs, and need no directory.
func (s *Server) targetOf(x *exchange, p *parameters) (id string, refused *response) {
	candidates := slices.Clone(p.audience)
	for i, uri := range p.resources {
		ids, resp := s.serversAt(x, uri)
		if resp != nil {
			return "", resp
		}
		if i == 0 && len(candidates) == 0 {
			candidates = ids
		}
		if slices.ContainsFunc(p.audience, func(id string) bool { return !slices.Contains(ids, id) }) {
			candidates = nil
		}
		candidates = slices.DeleteFunc(candidates, func(id string) bool { return !slices.Contains(ids, id) })
		if len(candidates) == 0 {
			break
		}
	}
	slices.Sort(candidates)
	if candidates = slices.Compact(candidates); len(candidates) != 1 || !canBeID(candidates[0]) {
		resp := invalidTarget("audience and resource do not name one MCP server")
		return "", &resp
	}
	return candidates[0], nil
}

// serversAt returns the IDs of the servers that have the resource.
func (s *Server) serversAt(x *exchange, uri string) (ids []string, refused *response) {
	if s.opts.Servers == nil {
		return nil, nil
	}
	found, err := s.opts.Servers.FindResource(x.Context(), uri)
	if errors.Is(err, servers.ErrUnavailable) {
		resp := oauthError(http.StatusServiceUnavailable, "temporarily_unavailable", "")
		resp = resp.after(serversUnavailable.retryAfter)
		return nil, &resp
	}
	for _, server := range found {
		ids = append(ids, server.ID)
	}
	return ids, nil
}

// sameScope reports whether two scopes have the same tokens (RFC 6749, section 3.3).
func sameScope(a, b string) bool {
	set := func(s string) []string {
		tokens := strings.Fields(s)
		slices.Sort(tokens)
		return slices.Compact(tokens)
	}
	return slices.Equal(set(a), set(b))
}

// exchangedJSON is RFC 8693, section 2.2.1.
type exchangedJSON struct {
	AccessToken     string  `json:"access_token"`
	IssuedTokenType string  `json:"issued_token_type"`
	TokenType       string  `json:"token_type"`
	ExpiresIn       *int64  `json:"expires_in,omitzero"`
	Scope           *string `json:"scope,omitzero"`
}

func exchanged(token *access.Token) response {
	body := exchangedJSON{AccessToken: string(token.AccessToken), IssuedTokenType: tokenTypeAccessToken, TokenType: "Bearer", Scope: token.Scope}
	if in := token.ExpiresIn; in != nil {
		seconds := int64(math.Floor(in.Seconds()))
		body.ExpiresIn = &seconds
	}
	text, err := json.Marshal(body, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return notRead(internal)
	}
	return jsonResponse(http.StatusOK, string(text))
}

// notExchanged is the answer of the other route for access tokens, as an error of OAuth.
func (s *Server) notExchanged(x *exchange, err error) response {
	resp := s.noToken(x, err)
	if resp.status == http.StatusConflict {
		resp.status = http.StatusBadRequest // the user has to connect again
	}
	return asOAuth(resp, "invalid_target") // as little can a token be had for a server that is refused
}

// asOAuth makes an answer of the other routes an error of OAuth, which has the code where
// neither the rate nor the server is to blame.
func asOAuth(resp response, code string) response {
	switch {
	case resp.status == http.StatusTooManyRequests, resp.status == http.StatusServiceUnavailable:
		code = "temporarily_unavailable"
	case resp.status >= 500:
		code = "server_error"
	}
	members, plain := strings.CutPrefix(resp.body, `{"error":`)
	if resp.body = `{"error":` + quote(code); plain {
		resp.body += "}"
	} else {
		resp.body += "," + strings.TrimPrefix(members, "{")
	}
	return resp
}

// notRead is asOAuth for a request that cannot be read, or not now.
func notRead(resp response) response { return asOAuth(resp, "invalid_request") }
