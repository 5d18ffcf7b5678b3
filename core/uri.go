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
// fragment, an option given twice or without '=', and anything without a scheme
// and "//". Options are decoded as those of a web form: '+' is a space. The
// errors do not repeat any part of s, since what stands there by mistake may be
// a key.
func ParseKeyURI(s string) (KeyURI, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || !validScheme(scheme) {
		if meant, ok := MeantKeyURI(s); ok {
			return KeyURI{}, fmt.Errorf("parsing key URI: it is in the form of another program; write %s", meant)
		}
		return KeyURI{}, errors.New(`parsing key URI: want scheme://…, such as "envkey://FOREST_EXECUTOR_ENCRYPTION_KEY" or "awskms:///alias/NAME"`)
	}
	if strings.Contains(rest, "#") {
		return KeyURI{}, errors.New("parsing key URI: a fragment ('#') has no meaning here; remove it")
	}
	rest, query, _ := strings.Cut(rest, "?")
	host, path, _ := strings.Cut(rest, "/")
	if strings.Contains(host, "@") {
		return KeyURI{}, errors.New("parsing key URI: user information ('…@') is not allowed, a key URI holds no secret; name a credentials file by an option instead")
	}
	path, err := url.PathUnescape(path)
	if err != nil {
		return KeyURI{}, errors.New("parsing key URI: the path has a '%' that is not followed by two hexadecimal digits")
	}
	options, err := parseOptions(query)
	if err != nil {
		return KeyURI{}, fmt.Errorf("parsing key URI: %w", err)
	}
	return KeyURI{Scheme: scheme, Host: host, Path: path, Options: options, text: s}, nil
}

// parseOptions parses what follows the '?'. Names are bounded to what a provider
// may define, so that an error of CheckOptions names a misspelt option and never
// a key that was pasted after the '?'.
func parseOptions(query string) (map[string]string, error) {
	options := make(map[string]string)
	if query == "" {
		return options, nil
	}
	for pair := range strings.SplitSeq(query, "&") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || !validOptionName(name) {
			return nil, fmt.Errorf("the options after '?' are not of the form name=value&name=value, with names of at most %d lower-case letters, digits and '_'", maxName)
		}
		value, err := url.QueryUnescape(value)
		if err != nil {
			return nil, errors.New("the value of an option has a '%' that is not followed by two hexadecimal digits")
		}
		if _, twice := options[name]; twice {
			return nil, errors.New("an option is given more than once; give it once")
		}
		options[name] = value
	}
	return options, nil
}

// maxName bounds a scheme and the name of an option, in bytes: below the 32
// digits of the shortest key that anyone may have pasted in their place.
const maxName = 31

func validOptionName(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

func validScheme(s string) bool {
	for i, c := range []byte(s) {
		letter := 'a' <= c && c <= 'z'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '-') {
			return false
		}
	}
	return s != "" && len(s) <= maxName
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
