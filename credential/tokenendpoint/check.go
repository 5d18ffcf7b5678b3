package tokenendpoint

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/nlnwa/whatwg-url/url"
)

// The reasons for which an endpoint is refused. They never hold a part of the
// URL, which may carry a secret.
var (
	ErrURL         = errors.New("it is not a valid absolute URL")
	ErrScheme      = errors.New("it must use http or https")
	ErrHTTPS       = errors.New("it must use https")
	ErrUserinfo    = errors.New("it must not hold a user name or password")
	ErrPort        = errors.New("it names a port that belongs to another protocol")
	ErrNUL         = errors.New("it holds a NUL character")
	ErrLoopback    = errors.New("it points at the executor host (loopback)")
	ErrMetadata    = errors.New("it points at a link-local / metadata address")
	ErrUnspecified = errors.New("it points at the unspecified address (0.0.0.0 / ::)")
	ErrMulticast   = errors.New("it points at a multicast or broadcast address")
	ErrTunnel      = errors.New("it points at an IPv4 address inside an IPv6 transition prefix")
	ErrUniqueLocal = errors.New("it points at a unique local address (fc00::/7)")
)

// Options are the optional settings of the guard.
type Options struct {
	// AllowLocal permits http and the loopback interface, for development. All
	// other reasons stay.
	AllowLocal bool

	// AllowUniqueLocal permits unique local addresses, fc00::/7 (RFC 4193), where
	// a private network has IPv6. Metadata services among them stay refused.
	AllowUniqueLocal bool
}

// Check judges a token endpoint. It returns nil, or one of the package's errors if
// the endpoint is refused. It resolves no name and is safe for concurrent use.
func Check(raw string, opts Options) error {
	_, err := parse(raw, opts)
	return err
}

// Canonical judges a token endpoint as Check does and returns it as the WHATWG
// serializer writes it. That is the string to connect to: net/url, and with it
// net/http, may read raw otherwise than it was judged.
func Canonical(raw string, opts Options) (string, error) {
	u, err := parse(raw, opts)
	if err != nil {
		return "", err
	}
	return u.Href(false), nil
}

// maxLength, in bytes, is that of 2048 characters outside ASCII. maxAt bounds the
// number of '@', at each of which the parser copies the user name before it: a
// few thousand would keep it busy for long.
const (
	maxLength = 8 << 10
	maxAt     = 32
)

func parse(raw string, opts Options) (*url.Url, error) {
	if len(raw) > maxLength {
		return nil, ErrURL
	}
	if strings.Count(raw, "@") > maxAt {
		return nil, ErrUserinfo
	}
	u, err := readURL(raw)
	if err != nil {
		return nil, err
	}
	if err := checkParts(u, opts); err != nil {
		return nil, err
	}
	if strings.IndexByte(raw, 0) >= 0 {
		return nil, ErrNUL
	}
	return u, nil
}

// checkParts asks for the most telling reason first, in upstream's order where
// upstream has the reason too.
func checkParts(u *url.Url, opts Options) error {
	scheme := u.Scheme()
	if scheme != "http" && scheme != "https" {
		return ErrScheme
	}
	reason := opts.permit(checkHost(u.Hostname()))
	switch {
	case reason != nil && !errors.Is(reason, ErrLoopback):
		return reason
	case scheme == "http" && !opts.AllowLocal:
		return ErrHTTPS
	case reason != nil:
		return reason
	case u.Username() != "" || u.Password() != "":
		return ErrUserinfo
	case u.Port() != "" && slices.Contains(badPorts, u.Port()):
		return ErrPort
	}
	return nil
}

// CheckAddr judges an address that a client is about to connect to, for example
// in net.Dialer.Control. It returns ErrLoopback or ErrUniqueLocal (unless opts
// allow it), ErrMetadata, ErrUnspecified, ErrMulticast or ErrTunnel, and nil for
// an address that may be reached.
func CheckAddr(addr netip.Addr, opts Options) error {
	return opts.permit(classify(addr))
}

// permit drops a reason that the options allow.
func (o Options) permit(reason error) error {
	if o.AllowLocal && errors.Is(reason, ErrLoopback) || o.AllowUniqueLocal && errors.Is(reason, ErrUniqueLocal) {
		return nil
	}
	return reason
}

// checkHost judges a serialized host.
func checkHost(host string) error {
	if addr, err := netip.ParseAddr(unbracket(host)); err == nil {
		return classify(addr)
	}
	return checkName(host)
}
