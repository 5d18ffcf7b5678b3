package grant

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/lockwood-kms/lockwood/access/egress"
	"github.com/lockwood-kms/lockwood/credential/tokenendpoint"
)

// The hints of RFC 7009, section 2.1.
const (
	HintRefreshToken = "refresh_token"
	HintAccessToken  = "access_token"
)

// ErrRevocationFailed means that a server did not revoke a token, and that it may later.
var ErrRevocationFailed = errors.New("the revocation endpoint did not answer as it should")

// ErrRevocationRefused means that a server does not revoke the token, or is not to be asked:
// asking again changes nothing.
var ErrRevocationRefused = errors.New("the revocation endpoint refuses")

// Revoke has the server at endpoint revoke r.RefreshToken, which is what hint says (RFC
// 7009). The client authenticates as it does at the token endpoint. The endpoint is judged
// as a token endpoint is, by name and at connect, and redirects are not followed.
//
// It returns ErrRevocationRefused or ErrRevocationFailed. The text of an answer is in
// neither.
func (c *Client) Revoke(ctx context.Context, r *Request, hint, endpoint string) error {
	canonical, err := tokenendpoint.Canonical(endpoint, c.opts.Endpoints)
	if err != nil {
		return fmt.Errorf("%w: it is not admitted: %w", ErrRevocationRefused, err)
	}
	ctx, cancel := withDeadline(ctx, c.opts.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, canonical, strings.NewReader(r.revocation(hint)))
	if err != nil {
		return fmt.Errorf("%w: it is not admitted", ErrRevocationRefused) // err quotes the endpoint
	}
	request.Header = r.header()
	response, err := c.transport.RoundTrip(request)
	switch {
	case errors.Is(err, egress.ErrNotAdmitted):
		return fmt.Errorf("%w: %w", ErrRevocationRefused, egress.Plain(err))
	case err != nil:
		return fmt.Errorf("%w: %w", ErrRevocationFailed, egress.Plain(err))
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, maxBody)) // what it says changes nothing
	switch code := response.StatusCode; {
	case code == http.StatusOK, code == http.StatusNoContent:
		return nil // also for a token that is not valid any more: section 2.2
	case code >= 500, code == http.StatusTooManyRequests, code == http.StatusRequestTimeout:
		return fmt.Errorf("%w: status %d", ErrRevocationFailed, code)
	default:
		return fmt.Errorf("%w: status %d", ErrRevocationRefused, code)
	}
}

// revocation returns the body of a request that revokes the token.
func (r *Request) revocation(hint string) string {
	b := "token=" + encode(string(r.RefreshToken)) + "&token_type_hint=" + hint
	if r.ClientID != nil && !r.basic() {
		b += "&client_id=" + encode(*r.ClientID)
	}
	if r.ClientSecret != nil && !r.basic() {
		b += "&client_secret=" + encode(string(*r.ClientSecret))
	}
	return b
}
