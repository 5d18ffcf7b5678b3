package grant

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

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
	opts            Options
	direct, proxied http.RoundTripper
}

// errNotAdmitted means that an endpoint is refused, by its spelling or its address.
var errNotAdmitted = errors.New("the token endpoint is not admitted")

// NewClient returns a client.
func NewClient(opts Options) *Client {
	opts.Timeout = min(cmp.Or(opts.Timeout, DefaultTimeout), MaxTimeout)
	if opts.Proxy == nil {
		opts.Proxy = http.ProxyFromEnvironment
	}
	c := &Client{opts: opts}
	c.direct = c.transport(nil, &net.Dialer{Control: c.admit})
	c.proxied = c.transport(opts.Proxy, &net.Dialer{})
	return c
}

// Timeout returns how long a request may take.
func (c *Client) Timeout() time.Duration { return c.opts.Timeout }

func (c *Client) transport(proxy func(*http.Request) (*url.URL, error), dialer *net.Dialer) *http.Transport {
	return &http.Transport{
		Proxy:       proxy,
		DialContext: dialer.DialContext,
		// The token is in the body: HTTP/2 would have sent the client's secret, in the
		// header, before the caller's right is judged.
		TLSNextProto:           map[string]func(string, *tls.Conn) http.RoundTripper{},
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.opts.RootCAs},
		DisableKeepAlives:      true, // a request on a connection that turns out to be closed could not be repeated
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// admit judges the address that is about to be connected to.
func (c *Client) admit(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err == nil {
		err = tokenendpoint.CheckAddr(to.Addr(), c.opts.Endpoints)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errNotAdmitted, err)
	}
	return nil
}

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
	response, err := c.roundTrip(request)
	if err != nil {
		return body.failed(withoutURL(err))
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

func (c *Client) roundTrip(request *http.Request) (*http.Response, error) {
	proxy, err := c.opts.Proxy(request)
	if err != nil {
		return nil, errors.New("the proxy's URL in the environment is not valid")
	}
	if proxy != nil {
		return c.proxied.RoundTrip(request)
	}
	return c.direct.RoundTrip(request)
}

// withoutURL returns err without the URL, which may hold a secret.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
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
