package access

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/lockwood-kms/lockwood/access/grant"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/pause"
)

// Revoker revokes tokens at the server that issued them; *grant.Client is one.
type Revoker interface {
	// Revoke has the endpoint revoke r.RefreshToken, which is what hint says (RFC 7009). It
	// returns grant.ErrRevocationRefused or grant.ErrRevocationFailed.
	Revoke(ctx context.Context, r *grant.Request, hint, endpoint string) error
}

// Revocation is how grants are ended at the servers that issued them.
type Revocation struct {
	Revoker Revoker
	// Endpoint returns where tokens of an MCP server are revoked, "" for nowhere. It may ask
	// elsewhere, until ctx ends.
	Endpoint func(ctx context.Context, mcpServerID, tokenEndpoint string) string
}

// The times of a revocation.
const (
	revokeTries    = 3
	revokePause    = time.Second // after the first try; then five times that
	endpointLookup = 5 * time.Second
)

// What comes of a revocation, for the metric and the audit line.
const (
	revoked      = "revoked"
	revokeFailed = "failed"      // three times
	revokeNo     = "refused"     // by the server, or its endpoint is not admitted
	revokeBusy   = "busy"        // too many grants are under way
	revokeBlind  = "not_opened"  // the credential did not open, or could not be read
	revokeUnsure = "interrupted" // the process ends
	revokeAgain  = "reconnected" // a credential is there again, with a grant that may be the same
)

// revokable is a token that is to be revoked once its credential is gone.
type revokable struct {
	key      Key
	request  grant.Request
	hint     string
	occasion string
}

// The occasions of a revocation.
const (
	atDisconnect = "disconnect"
	atLateGrant  = "late_grant"
)

// Disconnect removes the credential, if there is one, as credential.Service.Disconnect does,
// whose errors it returns. Where there is a revocation endpoint, the refresh token is
// revoked afterwards, without its caller. It removes in every state of the key: what cannot
// be opened is not revoked, and the audit log says so.
func (s *Service) Disconnect(ctx context.Context, userID int64, mcpServerID string) error {
	var ended *revokable
	if s.revocation != nil {
		ended = s.ending(ctx, Key{userID, mcpServerID})
	}
	if err := s.credentials.Disconnect(ctx, userID, mcpServerID); err != nil {
		return err
	}
	if ended != nil {
		s.revokeLater(ended)
	}
	return nil
}

// ending reads and opens what is about to be removed. It returns nil if there is nothing.
func (s *Service) ending(ctx context.Context, key Key) *revokable {
	r := &revokable{key: key, hint: grant.HintRefreshToken, occasion: atDisconnect}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	row, err := s.credentials.Read(ctx, key.UserID, key.MCPServerID)
	if errors.Is(err, credential.ErrNotFound) {
		return nil
	}
	if err != nil {
		return r
	}
	r.request.TokenEndpoint = row.TokenEndpoint
	if c, err := s.credentials.OpenRow(ctx, row); err == nil {
		r.request = requestOf(c)
	}
	return r
}

// requestOf is what presents the credential's refresh token.
func requestOf(c *credential.Credential) grant.Request {
	return grant.Request{
		TokenEndpoint: c.TokenEndpoint, RefreshToken: c.RefreshToken, ClientID: c.ClientID, ClientSecret: c.ClientSecret,
		AuthMethod: c.TokenEndpointAuthMethod, Scopes: c.Scopes,
	}
}

// revokeLate revokes what a grant brought whose credential was removed meanwhile. Where
// another one was deposited in its place it does not, since a server may end all grants of
// a user and a client together.
func (f *flight) revokeLate(ctx context.Context) {
	s := f.service
	if s.revocation == nil || !f.gone || f.credential == nil {
		return
	}
	statement, cancel := context.WithTimeout(ctx, statementTimeout)
	gone, err := s.isGone(statement, f.key)
	cancel()
	if !gone || err != nil {
		return
	}
	r := &revokable{key: f.key, request: requestOf(f.credential), hint: grant.HintRefreshToken, occasion: atLateGrant}
	switch {
	case f.answer.RefreshToken != nil:
		r.request.RefreshToken = *f.answer.RefreshToken
	case f.answer.AccessToken != "":
		r.request.RefreshToken, r.hint = f.answer.AccessToken, grant.HintAccessToken
	default:
		return
	}
	s.revokeLater(r)
}

// revokeLater revokes, in memory: what the process does not come to is not made up for.
func (s *Service) revokeLater(r *revokable) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed && r.occasion == atDisconnect { // nobody waits for it any more
		s.metrics.revocations.WithLabelValues(revokeUnsure).Inc()
		return
	}
	s.revoking.Go(func() {
		lookup, cancel := context.WithTimeout(s.ctx, endpointLookup)
		endpoint := s.revocation.Endpoint(lookup, r.key.MCPServerID, r.request.TokenEndpoint)
		cancel()
		if endpoint == "" {
			return
		}
		outcome, err := s.revoke(s.ctx, r, endpoint)
		s.metrics.revocations.WithLabelValues(outcome).Inc()
		attrs := []slog.Attr{
			slog.String("event", "revocation"), slog.Int64("user_id", r.key.UserID), slog.String("mcp_server_id", r.key.MCPServerID),
			slog.String("occasion", r.occasion), slog.String("outcome", outcome),
		}
		if err != nil {
			attrs = append(attrs, errorAttr(err))
		}
		s.log.LogAttrs(s.ctx, slog.LevelInfo, "audit", attrs...)
	})
}

// isGone reports whether there is no credential.
func (s *Service) isGone(ctx context.Context, key Key) (bool, error) {
	_, err := s.credentials.Read(ctx, key.UserID, key.MCPServerID)
	if errors.Is(err, credential.ErrNotFound) {
		return true, nil
	}
	return false, err
}

// errThere means that a credential is there again.
var errThere = errors.New("a credential was deposited meanwhile")

// try revokes once, unless there is a credential, or that is not known: the user may have
// deposited the same refresh token again, and a server may end all grants of a user and a
// client together.
func (s *Service) try(ctx context.Context, r *revokable, endpoint string) error {
	statement, cancel := context.WithTimeout(ctx, statementTimeout)
	gone, err := s.isGone(statement, r.key)
	cancel()
	switch {
	case err != nil:
		return err
	case !gone:
		return errThere
	}
	return s.revocation.Revoker.Revoke(ctx, &r.request, r.hint, endpoint)
}

// revoke tries three times.
func (s *Service) revoke(ctx context.Context, r *revokable, endpoint string) (outcome string, err error) {
	if r.request.RefreshToken == "" {
		return revokeBlind, nil
	}
	leave, err := s.limits.enter(ctx, r.key.UserID, host(endpoint))
	if err != nil {
		return revokeBusy, err
	}
	defer leave()
	wait := revokePause
	for try := 1; ; try++ {
		err = s.try(ctx, r, endpoint)
		switch {
		case err == nil:
			return revoked, nil
		case errors.Is(err, errThere):
			return revokeAgain, nil
		case errors.Is(err, grant.ErrRevocationRefused):
			return revokeNo, err
		case ctx.Err() != nil:
			return revokeUnsure, err
		case try == revokeTries:
			return revokeFailed, err
		}
		if !pause.For(ctx, wait+rand.N(wait/2)) { //nolint:gosec // jitter spreads requests; nobody gains by guessing it
			return revokeUnsure, err
		}
		wait *= 5
	}
}
