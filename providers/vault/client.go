package vault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/lockwood-kms/lockwood/providers/remote"
)

const (
	// maxAnswer bounds an answer of the server, in bytes.
	maxAnswer = 1 << 20
	// The client's own attempts bridge the moment in which a leader changes. They end
	// with the caller's context; longer outages are for the ring to wait for.
	attempts     = 2
	minRetryWait = 50 * time.Millisecond
	maxRetryWait = 250 * time.Millisecond
)

// connection is a client of one server, made anew at every login so that files are
// read again. It reaches for no network by itself.
type connection struct {
	client  *api.Client // in the key's namespace
	auth    *api.Client // in the namespace of the auth method
	nowhere *api.Client // in a namespace that there is not; nil without a namespace
	http    *http.Client
}

func connect(s *settings) (*connection, error) {
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment, // never used for this machine itself
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     90 * time.Second,
		MaxIdleConnsPerHost: 4,
		ForceAttemptHTTP2:   true,
	}
	if !s.plain {
		config, err := tlsConfig(s)
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig = config
	}
	c := &connection{http: &http.Client{
		Transport:     guard{transport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	var err error
	if c.client, err = newClient(s, c.http, s.namespace); err != nil {
		return nil, err
	}
	if c.auth, err = newClient(s, c.http, s.authNamespace); err != nil {
		return nil, err
	}
	if s.namespace != "" {
		c.nowhere, err = newClient(s, c.http, s.namespace+"/lockwood-no-such-namespace")
	}
	return c, err
}

// all returns the clients.
func (c *connection) all() []*api.Client {
	if c.nowhere == nil {
		return []*api.Client{c.client, c.auth}
	}
	return []*api.Client{c.client, c.auth, c.nowhere}
}

// newClient makes a client that takes nothing from the environment. The library
// reads the VAULT_ variables whatever it is given, so what it took from them is
// replaced; one that it cannot parse is an error of its own.
func newClient(s *settings, h *http.Client, namespace string) (*api.Client, error) {
	scheme := "https://"
	if s.plain {
		scheme = "http://"
	}
	client, err := api.NewClient(&api.Config{
		Address: scheme + s.address, HttpClient: h, DisableRedirects: true, // the library's would lose the body; see guard
		MaxRetries: attempts, MinRetryWait: minRetryWait, MaxRetryWait: maxRetryWait, CheckRetry: retryable,
	})
	if err != nil {
		return nil, errors.New("the Vault library refuses a VAULT_… variable of this process; remove these variables, they have no meaning here: everything stands in the key URI")
	}
	client.ClearToken()
	headers := http.Header{api.RequestHeaderName: {"true"}}
	if namespace != "" {
		headers.Set(api.NamespaceHeaderName, namespace)
	}
	client.SetHeaders(headers)
	client.SetWrappingLookupFunc(func(string, string) string { return "" })
	return client, nil
}

// tlsConfig reads the CA's file, and the client's certificate once to see that it
// can be used; afterwards it is read at every handshake, since such certificates
// are short-lived.
func tlsConfig(s *settings) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: s.serverName}
	if s.caCert != "" {
		pem, err := os.ReadFile(s.caCert)
		if err != nil {
			return nil, fmt.Errorf("the file of ca_cert cannot be read: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("the file of ca_cert, %s, holds no certificate in PEM", s.caCert)
		}
	}
	if s.clientCert == "" {
		return config, nil
	}
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(s.clientCert, s.clientKey)
		if err != nil {
			return nil, errClientCert
		}
		return &pair, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	return config, nil
}

// errClientCert quotes nothing, since one of the files is a private key.
var errClientCert = errors.New("the files of client_cert and client_key are no certificate and its private key in PEM that can be read")

// errPlainRedirect is a redirect that TLS would not protect.
var errPlainRedirect = errors.New("a redirect to plain HTTP")

// guard is the transport. It follows a redirect to the active node, once, with the same
// method and body; it sends nothing in plain text to another machine, nor anything that
// was meant for TLS; and it bounds what comes back. Neither net/http nor the Vault
// library will do: the first makes a GET of a 301 or 302, the second sends the redirected
// request with the body "null".
type guard struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (g guard) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := g.pass(r)
	if err != nil {
		return nil, err
	}
	if next, err := redirected(r, resp); next != nil || err != nil {
		_ = resp.Body.Close()
		if err != nil {
			return nil, err
		}
		return g.pass(next)
	}
	return resp, nil
}

// pass makes one request.
func (g guard) pass(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !remote.Loopback(r.URL.Host) {
		return nil, errPlainRedirect
	}
	resp, err := g.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	return resp, nil
}

// redirected returns the request that an answer to r asks for, or nil if it asks for
// none. Standbys answer 307; fronts of all kinds answer the others.
func redirected(r *http.Request, resp *http.Response) (*http.Request, error) {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, nil //nolint:nilnil // it asks for none
	}
	location, err := resp.Location()
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // it says nowhere to go; the status tells that
	}
	if r.URL.Scheme == "https" && location.Scheme != "https" {
		return nil, errPlainRedirect
	}
	next := r.Clone(r.Context())
	next.URL, next.Host = location, ""
	if r.Body == nil || r.Body == http.NoBody {
		return next, nil
	}
	if r.GetBody == nil {
		return nil, errors.New("a redirect of a request whose body cannot be sent again")
	}
	next.Body, err = r.GetBody()
	return next, err
}

// CloseIdleConnections is what http.Client's method of this name looks for.
func (g guard) CloseIdleConnections() {
	if closer, ok := g.next.(interface{ CloseIdleConnections() }); ok {
		closer.CloseIdleConnections()
	}
}

// retryable says which failures the client asks about again by itself: lost
// connections, and a node that is behind or changing. A limit of rate is respected,
// and a sealed server stays sealed for longer than this could wait.
func retryable(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err != nil {
		return !errors.Is(err, errPlainRedirect) && !certificateProblem(err), nil
	}
	switch resp.StatusCode {
	case http.StatusPreconditionFailed, http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout:
		return true, nil
	default:
		return false, nil
	}
}
