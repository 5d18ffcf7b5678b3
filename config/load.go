package config

import (
	"crypto/fips140"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/caarlos0/env/v11"

	"github.com/lockwood-kms/lockwood/core"
)

const (
	// strongSecretSize is the length, in bytes, from which an auth secret is
	// taken for strong; HS256 wants 32 bytes (RFC 7518 section 3.2).
	strongSecretSize = 32
	// fipsSecretSize is the least that the FIPS 140-3 module takes as an HMAC
	// key: 112 bits.
	fipsSecretSize = 14
	// leastMaxAge is the least age at which a data key is rolled: the clocks of
	// instances and database differ, and every data key is kept and unlocked for as
	// long as records are under it.
	leastMaxAge = time.Hour
)

// Load reads environ (lines NAME=value, as os.Environ returns) and file; the
// environment wins. A variable that is set but
// empty counts as unset, except ADMIN_ADDR.
//
// The error joins everything that is wrong, a line each, with what to do. The
// Config is returned also with an error, as far as it could be made, so that what
// else is to be checked can be reported with it.
func Load(environ []string, file EnvFile) (*Config, error) {
	l := &loader{cfg: &Config{}}
	v, values, err := l.read(environ, file)
	if err != nil {
		return l.cfg, err
	}
	l.secrets(v)
	l.database(v)
	l.service(v)
	l.keys(v)
	l.misspellings(values)
	return l.cfg, errors.Join(l.errs...)
}

// LoadForRecovery is Load for what reads a database with nothing but recovery KEKs,
// which may be a copy on a machine that serves nobody: only what keeps the database
// from being reached is an error. The variables of the keys are taken as they are,
// and the rest is left out.
func LoadForRecovery(environ []string, file EnvFile) (*Config, error) {
	l := &loader{cfg: &Config{}}
	v, _, err := l.read(environ, file)
	if err != nil {
		return l.cfg, err
	}
	l.database(v)
	wrong := errors.Join(l.errs...)
	l.keys(v)
	return l.cfg, wrong
}

// read returns the variables as text, and all that is set by name.
func (l *loader) read(environ []string, file EnvFile) (*variables, map[string]string, error) {
	values := l.merge(environ, file)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		l.cfg.Environ = append(l.cfg.Environ, core.Secret(name+"="+values[name]))
	}
	l.dropLinks(values)
	l.cleanAll(values)
	v := &variables{}
	if err := env.ParseWithOptions(v, env.Options{Environment: values}); err != nil {
		return nil, nil, fmt.Errorf("reading the environment: %w", err) // strings only, so this is a mistake in variables
	}
	if addr, set := values["ADMIN_ADDR"]; set {
		v.AdminAddr = addr // the one variable for which empty is a choice
	}
	l.secretFiles(v)
	return v, values, nil
}

// loader collects what is wrong while it fills a Config.
type loader struct {
	cfg  *Config
	errs []error
	// unread says that not every line of the file of variables could be read, so that
	// what seems not to be set may stand there.
	unread bool
	// empty are the variables that are set to nothing, in order.
	empty []string
	// links are the variables that were ignored as service links.
	links []string
}

func (l *loader) wrong(format string, args ...any) {
	l.errs = append(l.errs, fmt.Errorf(format, args...))
}

func (l *loader) warn(format string, args ...any) {
	l.cfg.Warnings = append(l.cfg.Warnings, fmt.Sprintf(format, args...))
}

// merge returns the variables by name.
func (l *loader) merge(environ []string, file EnvFile) map[string]string {
	values := map[string]string{}
	for _, e := range environ {
		if name, value, ok := strings.Cut(e, "="); ok {
			values[name] = value
		}
	}
	maps.Copy(values, l.dotenv(file, values))
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if values[name] == "" && name != "ADMIN_ADDR" {
			delete(values, name)
			l.empty = append(l.empty, name)
		}
	}
	return values
}

func (l *loader) secrets(v *variables) {
	secret, ok := l.valueOrFile("FOREST_AUTH_SECRET", v.AuthSecret, v.AuthSecretFile)
	l.cfg.AuthSecret = core.Secret(secret)
	switch n := len(secret); {
	case !ok || n == 0 && l.unread:
	case n == 0:
		l.wrong("FOREST_AUTH_SECRET: is not set; set it to the secret that signs your users' tokens, or make one with: lockwood key generate")
	case n < fipsSecretSize && fips140.Enforced():
		l.wrong("FOREST_AUTH_SECRET: is shorter than %d bytes, the least that GODEBUG=fips140=only takes; make one with: lockwood key generate", fipsSecretSize)
	case n < strongSecretSize:
		l.warn("FOREST_AUTH_SECRET is shorter than %d bytes; who guesses it is every user. Make one with: lockwood key generate", strongSecretSize)
	}
	l.warnSurrounded("FOREST_AUTH_SECRET", secret, "tokens verify only if whoever signs them has it too")
}

func (l *loader) service(v *variables) {
	c := l.cfg
	c.HTTPHost, c.AdminAddr = v.HTTPHost, v.AdminAddr
	c.HTTPPort = l.port("HTTP_PORT", v.HTTPPort)
	if c.AdminAddr != "" {
		if _, _, err := net.SplitHostPort(c.AdminAddr); err != nil {
			l.wrong("ADMIN_ADDR: want host:port, such as 127.0.0.1:3401, or nothing to switch it off")
		}
	}
	c.DrainGrace = l.duration("DRAIN_GRACE", v.DrainGrace)
	if n, err := strconv.ParseFloat(v.RateLimit, 64); err != nil || !(n >= 0) {
		l.wrong("RATE_LIMIT: want requests a second for a user, such as 5 or 0.5, or 0 for no limit")
	} else {
		c.RateLimit = n
	}
	c.HTTPMaxConnections = l.count("HTTP_MAX_CONNECTIONS", v.MaxConns, 10, 1_000_000)
	c.HTTPMaxMemory = int64(l.count("HTTP_MAX_MEMORY", v.MaxMemory, 16, 1<<20)) << 20
	c.TrustedProxies = l.prefixes("TRUSTED_PROXIES", v.Proxies)
	if n, err := strconv.ParseUint(v.Quota, 10, 31); err != nil {
		l.wrong("FOREST_EXECUTOR_CREDENTIAL_QUOTA: want how many credentials a user may have, such as 1000, or 0 for no limit")
	} else {
		c.CredentialQuota = int(n)
	}
	if err := c.LogLevel.UnmarshalText([]byte(v.LogLevel)); err != nil {
		c.LogLevel = slog.LevelInfo
		l.wrong("LOG_LEVEL: want debug, info, warn or error")
	}
	c.LogFormat = l.oneOf("LOG_FORMAT", v.LogFormat, "json", "text")
	if c.AllowLocalTokenEndpoints = l.boolean("FOREST_EXECUTOR_ALLOW_LOCAL_TOKEN_ENDPOINTS", v.AllowLocal); c.AllowLocalTokenEndpoints {
		l.warn("FOREST_EXECUTOR_ALLOW_LOCAL_TOKEN_ENDPOINTS admits token endpoints on this machine; it is for development")
	}
	c.AllowUniqueLocalTokenEndpoints = l.boolean("FOREST_EXECUTOR_ALLOW_UNIQUE_LOCAL_TOKEN_ENDPOINTS", v.AllowULA)
}

func (l *loader) keys(v *variables) {
	c := l.cfg
	c.EncryptionKey, c.EncryptionKeyFile = core.SecretBytes(v.Key), l.keyFile("FOREST_EXECUTOR_ENCRYPTION_KEY_FILE", v.KeyFile)
	if v.Previous != "" {
		for key := range strings.SplitSeq(v.Previous, ",") {
			c.PreviousKeys = append(c.PreviousKeys, core.SecretBytes(key))
		}
	}
	c.PreviousKeysFile = l.keyFile("FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS_FILE", v.PreviousFile)
	c.AllowWeakKey = l.boolean("FOREST_EXECUTOR_ALLOW_WEAK_KEY", v.AllowWeakKey)
	c.KeyProvider = v.KeyProvider
	c.PluginDir, c.PluginLock = v.PluginDir, v.PluginLock
	c.PreviousKeyProviders, c.RecoveryKeyProviders = list(v.PreviousKEKs), list(v.RecoveryKEKs)
	c.AutoRewrap = l.boolean("FOREST_EXECUTOR_AUTO_REWRAP", v.AutoRewrap)
	if c.DataKeyMaxAge = l.duration("FOREST_EXECUTOR_DATA_KEY_MAX_AGE", v.MaxAge); c.DataKeyMaxAge != 0 && c.DataKeyMaxAge < leastMaxAge {
		l.wrong("FOREST_EXECUTOR_DATA_KEY_MAX_AGE: want 1h or more, such as 90d, or 0 for never")
	}
	c.OutageBudget = l.duration("FOREST_EXECUTOR_KEY_OUTAGE_BUDGET", v.OutageBudget)
	c.WriteLegacy = l.oneOf("FOREST_EXECUTOR_WRITE_FORMAT", v.WriteFormat, "1", "legacy") == "legacy"
	c.LegacyClosed = l.oneOf("FOREST_EXECUTOR_LEGACY", v.Legacy, "", "closed") == "closed"
	if c.WriteLegacy && c.LegacyClosed {
		l.wrong("FOREST_EXECUTOR_WRITE_FORMAT=legacy and FOREST_EXECUTOR_LEGACY=closed contradict each other; unset one of them")
	}
	if c.WriteLegacy && v.Key == "" && v.KeyFile == "" {
		l.wrong("FOREST_EXECUTOR_WRITE_FORMAT=legacy: legacy records are sealed under the env key; set FOREST_EXECUTOR_ENCRYPTION_KEY or FOREST_EXECUTOR_ENCRYPTION_KEY_FILE")
	}
}

// list splits key URIs, which hold neither commas nor white space.
func list(value string) []string {
	return strings.FieldsFunc(value, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
}

func (l *loader) port(name, value string) int {
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil {
		l.wrong("%s: want a port number, 0 to 65535", name)
	}
	return int(n)
}

// count reads a whole number within bounds.
func (l *loader) count(name, value string, least, most int) int {
	n, err := strconv.Atoi(value)
	if err != nil || n < least || n > most {
		l.wrong("%s: want a whole number from %d to %d", name, least, most)
	}
	return n
}

// prefixes reads networks, or single addresses.
func (l *loader) prefixes(name, value string) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, text := range list(value) {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			var addr netip.Addr
			addr, err = netip.ParseAddr(text)
			prefix = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen())
		}
		if err != nil {
			l.wrong("%s: want addresses or networks separated by commas, such as 10.0.0.0/8", name)
			return nil
		}
		if bits := prefix.Bits() - 96; prefix.Addr().Is4In6() && bits >= 0 {
			prefix = netip.PrefixFrom(prefix.Addr().Unmap(), bits)
		}
		prefixes = append(prefixes, prefix.Masked())
	}
	return prefixes
}

func (l *loader) duration(name, value string) time.Duration {
	d, err := time.ParseDuration(value)
	if days, ok := strings.CutSuffix(value, "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		d = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || d < 0 {
		l.wrong("%s: want a duration such as 90s, 30m, 24h or 90d", name)
		return 0
	}
	return d
}

func (l *loader) boolean(name, value string) bool {
	b, err := strconv.ParseBool(value)
	if err != nil {
		l.wrong("%s: want true or false", name)
	}
	return b
}

// oneOf returns value if it is one of want, and else the first of them.
func (l *loader) oneOf(name, value string, want ...string) string {
	if slices.Contains(want, value) {
		return value
	}
	shown := slices.DeleteFunc(slices.Clone(want), func(s string) bool { return s == "" })
	l.wrong("%s: want %s", name, strings.Join(shown, " or "))
	return want[0]
}

var schemaPattern = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_$]{0,62}$`)
