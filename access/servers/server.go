package servers

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/net/http/httpguts"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/credential/tokenendpoint"
)

// Transport is how a server speaks MCP.
type Transport string

// The transports.
const (
	// HTTP is Streamable HTTP, and SSE where the server has nothing else.
	HTTP Transport = "http"
	// SSE is HTTP with server-sent events, of the protocol's revision 2024-11-05.
	SSE Transport = "sse"
)

// Source is where an entry comes from.
type Source string

// The sources.
const (
	File   Source = "file"
	Forest Source = "forest"
)

// AuthOAuth2 is the AuthType of a server that takes access tokens.
const AuthOAuth2 = "oauth2"

// Server is an entry of the directory. It is not changed once it is given out.
type Server struct {
	// ID is what credentials name as mcpServerId.
	ID string
	// Name is the entry's in its source.
	Name      string
	Source    Source
	Transport Transport
	// URL is that of the server, admitted and as the WHATWG serializer writes it. It may
	// hold a secret.
	URL string
	// Headers are sent with every request to the server's origin.
	Headers map[string]core.Secret
	// AuthType is AuthOAuth2, or something else, for which no access token is sent.
	AuthType string
	// Resource is the resource indicator (RFC 8707) that grants name, "" for none.
	Resource string
	// RevocationEndpoint is where refresh tokens are revoked (RFC 7009), admitted, https, and
	// as the WHATWG serializer writes it; "" for none. In an entry from Forest it counts only
	// if it is of the token endpoint's origin.
	RevocationEndpoint string

	indicator string // Resource as the WHATWG serializer writes it
}

// OAuth reports whether the server takes the access tokens of credentials.
func (s *Server) OAuth() bool { return s.AuthType == AuthOAuth2 }

// entry is a server as a source has it.
type entry struct {
	ID                 string            `json:"id"`
	Type               string            `json:"type"`
	Transport          string            `json:"transport"`
	URL                string            `json:"url"`
	Headers            map[string]string `json:"headers"`
	AuthType           string            `json:"authType"`
	Resource           jsontext.Value    `json:"resource"`
	RevocationEndpoint string            `json:"revocationEndpoint"`
}

// maxID is the width of upstream's column for a server's ID, in characters.
const maxID = 255

// server judges the entry. Its error names the field, and no value.
func (e *entry) server(name string, source Source, endpoints tokenendpoint.Options) (*Server, error) {
	s := &Server{ID: e.ID, Name: name, Source: source, AuthType: e.AuthType}
	if s.ID == "" && source == File {
		s.ID = name
	}
	if s.ID == "" || len([]rune(s.ID)) > maxID || strings.ContainsRune(s.ID, 0) {
		return nil, fmt.Errorf("id: want 1 to %d characters, without NUL", maxID)
	}
	var err error
	if s.Transport, err = e.transport(); err != nil {
		return nil, err
	}
	if s.URL, err = admitted(e.URL, endpoints); err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	if s.Headers, err = headers(e.Headers); err != nil {
		return nil, fmt.Errorf("headers: %w", err)
	}
	if s.Resource, s.indicator, err = e.resource(endpoints); err != nil {
		return nil, fmt.Errorf("resource: %w", err)
	}
	if e.RevocationEndpoint != "" {
		if s.RevocationEndpoint, err = admitted(e.RevocationEndpoint, endpoints); err != nil {
			return nil, fmt.Errorf("revocationEndpoint: %w", err)
		}
	}
	return s, nil
}

func (e *entry) transport() (Transport, error) {
	kind := e.Type
	if kind == "" {
		kind = e.Transport
	}
	switch strings.ReplaceAll(kind, "_", "-") {
	case "", "http", "streamable-http":
		return HTTP, nil
	case "sse":
		return SSE, nil
	}
	return "", errors.New("type: want http or sse; a server that is a command cannot be reached from here")
}

// errFragment means that a URL ends in a fragment, which RFC 8707 forbids and which is
// never sent.
var errFragment = errors.New("it must not have a fragment")

// admitted returns the URL as it is connected to.
func admitted(raw string, endpoints tokenendpoint.Options) (string, error) {
	canonical, err := tokenendpoint.Canonical(raw, endpoints)
	if err != nil {
		return "", err
	}
	if strings.Contains(canonical, "#") {
		return "", errFragment
	}
	return canonical, nil
}

// resource returns the resource indicator as it is written, for an authorization server may
// compare it letter by letter, and as it is compared here.
func (e *entry) resource(endpoints tokenendpoint.Options) (raw, canonical string, err error) {
	switch v := e.Resource; v.Kind() {
	case 0, 'n', 'f':
		return "", "", nil
	case 't':
		raw = e.URL
	case '"':
		if json.Unmarshal(v, &raw) != nil {
			raw = ""
		}
	default:
	}
	if raw == "" {
		return "", "", errors.New("want true, for the server's own URL, or a URL")
	}
	canonical, err = admitted(raw, endpoints)
	return raw, canonical, err
}

// ofTheProtocol are headers that HTTP or MCP sets.
var ofTheProtocol = []string{
	"Accept", "Accept-Encoding", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Expect", "Host", "Keep-Alive",
	"Last-Event-Id", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// headers judges the configured headers and returns them under their canonical names.
func headers(raw map[string]string) (map[string]core.Secret, error) {
	h := make(map[string]core.Secret, len(raw))
	for name, value := range raw {
		canonical := http.CanonicalHeaderKey(name)
		_, twice := h[canonical]
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			return nil, errors.New("a name is not one of HTTP")
		case slices.Contains(ofTheProtocol, canonical), strings.HasPrefix(canonical, "Mcp-"), strings.HasPrefix(canonical, "Proxy-"):
			return nil, fmt.Errorf("%s is set by the protocol; leave it out", canonical)
		case !httpguts.ValidHeaderFieldValue(value):
			return nil, fmt.Errorf("the value of %s holds a character that HTTP does not take", canonical)
		case twice:
			return nil, fmt.Errorf("%s is there twice", canonical)
		}
		h[canonical] = core.Secret(value)
	}
	return h, nil
}

// SameOrigin reports whether two URLs have scheme, host and port in common (RFC 6454,
// section 4). What is no URL has no origin.
func SameOrigin(a, b *url.URL) bool {
	return a != nil && b != nil && a.Host != "" && strings.EqualFold(a.Scheme, b.Scheme) && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

func port(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case strings.EqualFold(u.Scheme, "https"):
		return "443"
	}
	return "80"
}
