package remote

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/lockwood-kms/lockwood/core"
)

// CheckValues returns an error that names every option without a value, each on a line
// of its own.
func CheckValues(uri core.KeyURI) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(uri.Options)) {
		if uri.Options[name] == "" {
			errs = append(errs, fmt.Errorf("the option %s is empty: give it a value or leave it out", name))
		}
	}
	return errors.Join(errs...)
}

// Explain returns the error of a key URI that a provider refused, and what was probably
// meant, on a line of its own, where the URI is in the form of another program.
func Explain(uri core.KeyURI, err error) error {
	if meant, ok := core.MeantKeyURI(uri.String()); ok {
		err = fmt.Errorf("%w\nwrite %s", err, meant)
	}
	return fmt.Errorf("reading the key URI: %w", err)
}

// Loopback reports whether a host, with or without a port, is this machine itself: what
// is sent there in plain text crosses no network. Names below localhost do not count,
// since not every resolver keeps them on the machine.
func Loopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback() || host == "localhost"
}
