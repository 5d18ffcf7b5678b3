package postgres

import (
	"crypto/tls"
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockwood-kms/lockwood/store"
)

// sslModes are the words of Config.SSL, and of the "ssl" that Node's driver takes in a
// URL, in libpq's words.
var sslModes = map[string]string{
	"": "verify-full", "true": "verify-full", "1": "verify-full",
	"no-verify": "require", "false": "disable", "0": "disable",
}

// sslMode returns how the connection is protected: as the URL says, by sslmode or by
// ssl, or else as the configuration does. An empty value says nothing.
func (c Config) sslMode() (mode string, err error) {
	dsn := string(c.URL)
	given := func(name string) []string {
		return slices.DeleteFunc(settings(dsn, name), func(v string) bool { return v == "" })
	}
	modes, ssl := given("sslmode"), given("ssl")
	switch {
	case len(modes)+len(ssl) > 1:
		return "", errors.New("the connection URL says more than once how it is protected: keep one sslmode, and no ssl beside it")
	case len(modes) == 1 && modes[0] == "no-verify": // a word of Node's driver
		return "require", nil
	case len(modes) == 1:
		return modes[0], nil
	case len(ssl) == 1:
		if mode, ok := sslModes[ssl[0]]; ok {
			return mode, nil
		}
		return "", errors.New(`in the connection URL, ssl must be "true", "no-verify" or "false"`)
	}
	if mode, ok := sslModes[c.SSL]; ok {
		return mode, nil
	}
	return "", errors.New(`the TLS mode must be "true", "no-verify" or "false"`)
}

// connString returns the URL with the TLS mode in it, once.
func (c Config) connString() (string, error) {
	mode, err := c.sslMode()
	if err != nil {
		return "", err
	}
	dsn := withSetting(withoutSetting(withoutSetting(string(c.URL), "ssl"), "sslmode"), "sslmode", mode)
	if c.SSLCA != "" && strings.HasPrefix(mode, "verify-") && !hasSetting(dsn, "sslrootcert") {
		dsn = withSetting(dsn, "sslrootcert", c.SSLCA)
	}
	return dsn, nil
}

// How well a connection is protected.
const (
	plain     = iota
	encrypted // towards whoever answers
	verified
)

// weakTLS returns the hosts to which the final settings may connect with less
// protection than Config.SSL asks for, with the mode that lets them.
func (c Config) weakTLS(p *pgxpool.Config) (findings []store.Finding) {
	asked := map[string]int{"verify-full": verified, "require": encrypted}[sslModes[c.SSL]]
	mode, _ := c.sslMode()
	look := func(host string, t *tls.Config) {
		f := store.Finding{Condition: store.WeakTLS, Object: host, Detail: mode}
		if !strings.HasPrefix(host, "/") && protection(t) < asked && !slices.Contains(findings, f) {
			findings = append(findings, f)
		}
	}
	look(p.ConnConfig.Host, p.ConnConfig.TLSConfig)
	for _, fallback := range p.ConnConfig.Fallbacks {
		look(fallback.Host, fallback.TLSConfig)
	}
	return findings
}

// protection is what t comes to. A certificate that is verified without the host's name
// is worth something only where not every public authority is trusted.
func protection(t *tls.Config) int {
	switch {
	case t == nil:
		return plain
	case !t.InsecureSkipVerify, t.VerifyPeerCertificate != nil && t.RootCAs != nil:
		return verified
	}
	return encrypted
}
