package grant

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/lockwood-kms/lockwood/access/egress"
	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/credential/tokenendpoint"
)

// DefaultTimeout is Options.Timeout where that is zero, and MaxTimeout its limit.
const (
	DefaultTimeout = 15 * time.Second
	MaxTimeout     = 60 * time.Second
)

// Options are the optional settings of a Client.
type Options struct {
	// Endpoints says which endpoints are admitted, by name and by address.
	Endpoints tokenendpoint.Options
	// Timeout is how long a request may take, at most MaxTimeout.
	Timeout time.Duration
	// RootCAs are the authorities that certificates of endpoints are checked against. Nil
	// is those of the system.
	RootCAs *x509.CertPool
	// Proxy returns the proxy for a request, nil for none. A nil Proxy takes it from
	// HTTPS_PROXY, HTTP_PROXY and NO_PROXY. A proxy resolves names itself, so that behind
	// one only the spelling of an endpoint is judged.
	Proxy func(*http.Request) (*url.URL, error)
}

// Client presents refresh tokens. It is safe for concurrent use, and keeps no connection
// when a request is done.
type Client struct {
	opts      Options
	transport http.RoundTripper
}

// errNotAdmitted means that an endpoint is refused by its spelling.
var errNotAdmitted = errors.New("the token endpoint is not admitted")

// NewClient returns a client.
func NewClient(opts Options) *Client {
	opts.Timeout = min(cmp.Or(opts.Timeout, DefaultTimeout), MaxTimeout)
	return &Client{opts, egress.New(egress.Options{Endpoints: opts.Endpoints, RootCAs: opts.RootCAs, Proxy: opts.Proxy}, func(t *http.Transport) {
		// The token is in the body: HTTP/2 would have sent the client's secret, in the
		// header, before the caller's right is judged.
		t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
		t.DisableKeepAlives = true // a request on a connection that turns out to be closed could not be repeated
	})}
}

// Timeout returns how long a request may take.
func (c *Client) Timeout() time.Duration { return c.opts.Timeout }

// Do presents the refresh token once. may is asked when the connection stands and before
// the first byte leaves: if it returns an error, nothing is sent and Answer.Err is that
// error. ctx may end the request, after which nobody knows what the server did with it.
func (c *Client) Do(ctx context.Context, r *Request, may func() error) Answer {
	endpoint, err := tokenendpoint.Canonical(r.TokenEndpoint, c.opts.Endpoints)
	if err != nil {
		return Answer{Verdict: protocol.Refused, Err: fmt.Errorf("%w: %w", errNotAdmitted, err)}
	}
	ctx, cancel := withDeadline(ctx, c.opts.Timeout)
	defer cancel()
	form := r.form()
	body := &gate{may: may, form: strings.NewReader(form)}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, body)
	if err != nil {
		return Answer{Verdict: protocol.Refused, Err: errNotAdmitted} // err quotes the endpoint
	}
	request.Header = r.header()
	request.ContentLength = int64(len(form))
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return body.failed(egress.Plain(err))
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	sentAt, _ := body.sent()
	answer := read(response.StatusCode, response.Header, raw, err != nil || len(raw) > maxBody, time.Now())
	if answer.SentAt = sentAt; sentAt.IsZero() {
		answer.SentAt = time.Now() // the server answered before it had read anything
	}
	return answer
}

// lateness is how late a deadline may fire: later, and the process was stopped
// meanwhile. Then what has arrived is read for grace more.
const (
	lateness = time.Second
	grace    = 2 * time.Second
)

// withDeadline is context.WithTimeout for a process that may be stopped.
func withDeadline(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	due := time.Now().Add(d)
	stopped := make(chan struct{})
	timer := time.AfterFunc(d, func() {
		if time.Since(due) > lateness {
			late := time.NewTimer(grace)
			defer late.Stop()
			select {
			case <-late.C:
			case <-stopped:
			}
		}
		cancel(context.DeadlineExceeded)
	})
	return ctx, func() {
		timer.Stop()
		close(stopped)
		cancel(context.Canceled)
	}
}
