package client

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/lockwood-kms/lockwood/core"
)

// maxDiscarded is how much of a 401's body is read so that its connection can be used
// again, in bytes.
const maxDiscarded = 64 << 10

// Transport is an http.RoundTripper for requests to one MCP server. Client.Transport
// makes one. It is safe for concurrent use.
type Transport struct {
	client      *Client
	mcpServerID string
	origin      string
	base        http.RoundTripper
}

// Transport returns a transport that puts the user's access token on each request to the
// origin of serverURL, such as https://mcp.example.com/mcp. Where that answers 401 it
// asks Lockwood for another token, once, and sends the request again. A request whose body
// has no GetBody, which http.NewRequest sets for the readers that it knows, is not sent
// again: the caller gets the 401, and the next request the other token.
// Requests to other origins, as a redirection makes them, go out as they are. A nil base is
// http.DefaultTransport. It returns an error if serverURL is not an http or https URL.
//
// RoundTrip returns the error of Client.AccessToken, in which http.Client wraps a
// *url.Error: errors.Is finds ErrNeedsReauth in it.
func (c *Client) Transport(mcpServerID, serverURL string, base http.RoundTripper) (*Transport, error) {
	u, err := url.Parse(serverURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("creating transport: the URL of the MCP server has to be of the form https://host/path")
	}
	if base == nil {
		base = http.DefaultTransport
	}
	return &Transport{client: c, mcpServerID: mcpServerID, origin: originOf(u), base: base}, nil
}

// originOf returns scheme, host and port.
func originOf(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if originOf(req.URL) != t.origin {
		return t.base.RoundTrip(req)
	}
	token, err := t.client.AccessToken(req.Context(), t.mcpServerID, nil)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	resp, err := t.send(req, req.Body, token.AccessToken)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	body, ok := bodyAgain(req)
	another, err := t.client.AccessToken(req.Context(), t.mcpServerID, &Demand{Rejected: token.AccessToken})
	if !ok {
		return resp, nil // the next request has another token, or says why not
	}
	_, _ = io.CopyN(io.Discard, resp.Body, maxDiscarded)
	_ = resp.Body.Close()
	if err != nil {
		if body != nil {
			_ = body.Close()
		}
		return nil, fmt.Errorf("after a 401 of the MCP server: %w", err)
	}
	return t.send(req, body, another.AccessToken)
}

// send sends a copy of req, which a RoundTripper may not change, with body and token.
func (t *Transport) send(req *http.Request, body io.ReadCloser, token core.Secret) (*http.Response, error) {
	out := req.Clone(req.Context())
	out.Body = body
	out.Header.Set("Authorization", "Bearer "+string(token))
	return t.base.RoundTrip(out)
}

// bodyAgain returns the body of a request that was sent, to be sent again, and whether
// that can be.
func bodyAgain(req *http.Request) (body io.ReadCloser, ok bool) {
	if req.Body == nil || req.Body == http.NoBody {
		return req.Body, true
	}
	if req.GetBody == nil {
		return nil, false
	}
	body, err := req.GetBody()
	return body, err == nil
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}
