package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/pause"
)

const (
	// defaultTimeout is more than the 25 s in which Lockwood answers.
	defaultTimeout = 30 * time.Second
	// defaultMaxWait is the longest Retry-After that is waited for.
	defaultMaxWait = 10 * time.Second
	// maxAnswer bounds an answer, in bytes: a list of as many credentials as a user has.
	maxAnswer = 64 << 20

	routeCredentials = "/mcp-oauth-credentials"
)

// Options are the optional settings of a Client.
type Options struct {
	// Transport sends the requests to Lockwood. Nil is http.DefaultTransport.
	Transport http.RoundTripper

	// Timeout bounds each request to Lockwood, its answer included. 0 is 30 seconds.
	Timeout time.Duration

	// MaxWait is the longest that a call waits, once, because Lockwood answered 429 or 503
	// with a Retry-After. If it says more, or says so twice, the call fails. 0 is 10
	// seconds; less than 0 never waits.
	MaxWait time.Duration
}

// Client asks Lockwood in the name of one user. It is safe for concurrent use.
type Client struct {
	base    string // without a slash at the end
	user    UserToken
	http    *http.Client
	timeout time.Duration
	maxWait time.Duration
}

// New returns a client of the Lockwood at baseURL, such as https://lockwood.example.com,
// for the user whom the tokens of user name. It sends nothing. It returns an error if
// baseURL is not an http or https URL of a host, or has a user, a query or a fragment.
func New(baseURL string, user UserToken, opts *Options) (*Client, error) {
	if opts == nil {
		opts = &Options{}
	}
	u, err := url.Parse(baseURL)
	// The error of url.Parse is left out: it quotes the URL, which may hold a password.
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("creating client: the URL of Lockwood has to be of the form https://host or https://host/path")
	}
	if user == nil {
		return nil, errors.New("creating client: there is no user token")
	}
	c := &Client{base: strings.TrimSuffix(u.String(), "/"), user: user, timeout: opts.Timeout, maxWait: opts.MaxWait}
	if c.timeout <= 0 {
		c.timeout = defaultTimeout
	}
	if c.maxWait == 0 {
		c.maxWait = defaultMaxWait
	}
	c.http = &http.Client{
		Transport: opts.Transport,
		// Lockwood never redirects, and where else a token would be sent nobody knows.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// call sends a request and decodes a 200 into the answer, if that is not nil. What it was
// doing stands in the error. Where Lockwood says when to come back, it does so, once.
func (c *Client) call(ctx context.Context, doing, method, path string, body, answer any) error {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return fmt.Errorf("%s: encoding the request: %w", doing, err)
		}
	}
	err := c.once(ctx, method, path, text, answer)
	if failed, ok := errors.AsType[*Error](err); ok && failed.Temporary() && failed.RetryAfter > 0 && failed.RetryAfter <= c.maxWait {
		if !pause.For(ctx, failed.RetryAfter) {
			return fmt.Errorf("%s: %w, while waiting after: %w", doing, ctx.Err(), err)
		}
		err = c.once(ctx, method, path, text, answer)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// once sends one request.
func (c *Client) once(ctx context.Context, method, path string, body []byte, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	token, err := c.user(ctx)
	if err != nil {
		return fmt.Errorf("getting the user's token: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("building the request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+string(token))
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("asking Lockwood: %w", withoutURL(err))
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("reading Lockwood's answer: %w", err)
	case len(text) > maxAnswer:
		return fmt.Errorf("reading Lockwood's answer: it has more than %d bytes", maxAnswer)
	case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNoContent:
		return newError(resp, text)
	case answer == nil:
		return nil
	}
	// The cause is left out: it may quote the answer, which may hold a token.
	if json.Unmarshal(text, answer) != nil {
		return errors.New("reading Lockwood's answer: it is not the JSON that was expected: is this the URL of Lockwood?")
	}
	return nil
}

// withoutURL returns what an error of http.Client is about: the URL has the server's ID,
// and nobody needs it twice.
func withoutURL(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}

// pathOf returns the path of the credential for an MCP server.
func pathOf(mcpServerID string) (string, error) {
	if mcpServerID == "" {
		return "", errors.New("there is no MCP server ID")
	}
	return routeCredentials + "/" + url.PathEscape(mcpServerID), nil
}

// UserToken returns a token that names the user, a JSON Web Token signed with
// FOREST_AUTH_SECRET. It is called for each request and has to be safe for concurrent use.
type UserToken func(ctx context.Context) (core.Secret, error)

// StaticUserToken returns a UserToken that is always the same.
func StaticUserToken(token core.Secret) UserToken {
	return func(context.Context) (core.Secret, error) { return token, nil }
}
