// Package egress makes the connections that leave the service: to token endpoints, to MCP
// servers, and to Forest. Users and files name these, so each address is judged when it is
// connected to, by the same policy for all: a name that leads to this host or to a metadata
// service, now or after a change of DNS, gets nothing.
//
// Where a proxy applies it resolves names itself. Then only the spelling of a URL can be
// judged, by tokenendpoint.Canonical, which every caller does first.
package egress

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"

	"github.com/lockwood-kms/lockwood/credential/tokenendpoint"
)

// ErrNotAdmitted means that an address is refused. It is wrapped together with the reason,
// one of package tokenendpoint.
var ErrNotAdmitted = errors.New("the address is not admitted")

var errProxy = errors.New("the proxy's URL in the environment is not valid")

// Options say what may be connected to, and how. The zero value admits what strict token
// endpoints may be.
type Options struct {
	// Endpoints says which addresses are admitted.
	Endpoints tokenendpoint.Options
	// RootCAs are the authorities that certificates are checked against. Nil is those of
	// the system.
	RootCAs *x509.CertPool
	// Proxy returns the proxy for a request, nil for none. A nil Proxy takes it from
	// HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
	Proxy func(*http.Request) (*url.URL, error)
}

// Transport is an http.RoundTripper that follows no redirect and judges every address that
// it connects to. It is safe for concurrent use.
type Transport struct {
	proxy           func(*http.Request) (*url.URL, error)
	direct, proxied *http.Transport
}

var _ http.RoundTripper = (*Transport)(nil)

// New returns a transport. TLS is 1.2 or later, and a response has at most 64 KiB of
// headers. adjust, if it is not nil, sets what else a caller needs.
func New(opts Options, adjust func(*http.Transport)) *Transport {
	if opts.Proxy == nil {
		opts.Proxy = http.ProxyFromEnvironment
	}
	transport := func(dialer *net.Dialer, proxy func(*http.Request) (*url.URL, error)) *http.Transport {
		t := &http.Transport{
			Proxy:                  proxy,
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: opts.RootCAs},
			MaxResponseHeaderBytes: 64 << 10,
		}
		if adjust != nil {
			adjust(t)
		}
		return t
	}
	admit := func(_, address string, _ syscall.RawConn) error { return Admit(address, opts.Endpoints) }
	return &Transport{
		proxy:   opts.Proxy,
		direct:  transport(&net.Dialer{Control: admit}, nil),
		proxied: transport(&net.Dialer{}, opts.Proxy), // the proxy may be on this host
	}
}

// Admit judges an address that is about to be connected to, such as 192.0.2.7:443. Its
// error wraps ErrNotAdmitted.
func Admit(address string, opts tokenendpoint.Options) error {
	to, err := netip.ParseAddrPort(address)
	if err == nil {
		err = tokenendpoint.CheckAddr(to.Addr(), opts)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotAdmitted, err)
	}
	return nil
}

// RoundTrip implements http.RoundTripper. Its errors do not quote the URL.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	proxy, err := t.proxy(r)
	if err != nil {
		return nil, errProxy
	}
	if proxy != nil {
		return t.proxied.RoundTrip(r)
	}
	return t.direct.RoundTrip(r)
}

// CloseIdleConnections closes the connections that wait for a further request.
func (t *Transport) CloseIdleConnections() {
	t.direct.CloseIdleConnections()
	t.proxied.CloseIdleConnections()
}
