package core

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// KeyURI names a KEK in configuration, for example
// "envkey://FOREST_EXECUTOR_ENCRYPTION_KEY" or
// "vault://vault.example.com:8200/transit/keys/forest?namespace=team-a". It
// holds no secret: credentials are named by profile or by file.
type KeyURI struct {
	// Scheme selects the provider; lower case.
	Scheme string
	// Host is the part between "//" and the next '/', with its port, exactly
	// as written.
	Host string
	// Path is what follows the host, without its leading '/', percent-decoded.
	Path string
	// Options are the query's values, each name once.
	Options map[string]string

	text string
}

// ParseKeyURI parses s. It refuses user information (a place for secrets), a
// fragment, an option given twice and anything without a scheme and "//". The
// errors do not repeat s, since what stands there by mistake may be a key.
func ParseKeyURI(s string) (KeyURI, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || !validScheme(scheme) {
		return KeyURI{}, errors.New(`parsing key URI: want scheme://…, such as "envkey://FOREST_EXECUTOR_ENCRYPTION_KEY" or "awskms:///alias/NAME"`)
	}
	rest, query, _ := strings.Cut(rest, "?")
	if strings.Contains(s, "#") {
		return KeyURI{}, errors.New("parsing key URI: a fragment ('#') has no meaning here; remove it")
	}
	host, path, _ := strings.Cut(rest, "/")
	if strings.Contains(host, "@") {
		return KeyURI{}, errors.New("parsing key URI: user information ('…@') is not allowed, a key URI holds no secret; name a credentials file by an option instead")
	}
	path, err := url.PathUnescape(path)
	if err != nil {
		return KeyURI{}, errors.New("parsing key URI: the path has a '%' that is not followed by two hexadecimal digits")
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return KeyURI{}, errors.New("parsing key URI: the options after '?' are not of the form name=value&name=value")
	}
	u := KeyURI{Scheme: scheme, Host: host, Path: path, Options: make(map[string]string, len(values)), text: s}
	for name, v := range values {
		if len(v) > 1 {
			return KeyURI{}, fmt.Errorf("parsing key URI: option %q is given %d times; give it once", name, len(v))
		}
		u.Options[name] = v[0]
	}
	return u, nil
}

func validScheme(s string) bool {
	for i, c := range []byte(s) {
		letter := 'a' <= c && c <= 'z'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '-') {
			return false
		}
	}
	return s != ""
}

// String returns the URI as it was written.
func (u KeyURI) String() string { return u.text }

// CheckOptions returns an error that names every option that is not in known.
// A provider calls it first, so that a misspelt option is never silently
// dropped.
func (u KeyURI) CheckOptions(known ...string) error {
	var unknown []string
	for name := range u.Options {
		if !slices.Contains(known, name) {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	if len(known) == 0 {
		return fmt.Errorf("key URI %s://: unknown option %s; this provider takes none", u.Scheme, strings.Join(unknown, ", "))
	}
	return fmt.Errorf("key URI %s://: unknown option %s; known are %s", u.Scheme, strings.Join(unknown, ", "), strings.Join(known, ", "))
}
