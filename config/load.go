package config

import (
	"crypto/fips140"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"os"
	"slices"
	"strings"
	"time"

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

	// leastIdle is the least time after which a refresh token counts as idle.
	leastIdle = time.Hour
	// The limits of how long a request to a token endpoint may take. A lease lasts longer,
	// and after a crash it has to run out before another instance goes on.
	leastGrantTimeout = time.Second
	mostGrantTimeout  = 60 * time.Second
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
	l := &loader{cfg: &Config{}, databaseOnly: true}
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
	l.cfg.EnvFile = file.Path
	values := l.merge(environ, file)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		l.cfg.Environ = append(l.cfg.Environ, core.Secret(name+"="+values[name]))
	}
	l.dropLinks(values)
	l.cleanAll(values)
	v := &variables{}
	if err := l.parse(v, values); err != nil {
		return nil, nil, err
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
	// databaseOnly says that only what the database needs is judged.
	databaseOnly bool
	// mistyped are the variables whose values are not of their type.
	mistyped []string
	// unread says that not every line of the file of variables could be read, so that
	// what seems not to be set may stand there.
	unread bool
	// empty are the variables that are set to nothing, in order.
	empty []string
	// links are the variables that were ignored as service links.
	links []string
}

// judges reports whether a mistake in the variable is to be told.
func (l *loader) judges(name string) bool {
	return !l.databaseOnly || strings.HasPrefix(name, "DATABASE_")
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
		l.warn("FOREST_AUTH_SECRET is shorter than %d bytes; anyone who guesses it can act as any user. Make one with: lockwood key generate", strongSecretSize)
	}
	l.warnSurrounded("FOREST_AUTH_SECRET", secret, "tokens verify only if whoever signs them has it too")
}

func (l *loader) service(v *variables) {
	c := l.cfg
	c.HTTPHost, c.AdminAddr = v.HTTPHost, v.AdminAddr
	c.HTTPPort = int(v.HTTPPort)
	if c.AdminAddr != "" {
		if _, _, err := net.SplitHostPort(c.AdminAddr); err != nil {
			l.wrong("ADMIN_ADDR: want host:port, such as 127.0.0.1:3401, or nothing to switch it off")
		}
	}
	c.DrainGrace = time.Duration(v.DrainGrace)
	if c.RateLimit = v.RateLimit; !(c.RateLimit >= 0) {
		l.wrong("RATE_LIMIT: want requests a second for a user, such as 5 or 0.5, or 0 for no limit")
	}
	c.HTTPMaxConnections = l.within("HTTP_MAX_CONNECTIONS", v.HTTPMaxConnections, 10, 1_000_000)
	c.HTTPMaxMemory = int64(l.within("HTTP_MAX_MEMORY", v.HTTPMaxMemory, 16, 1<<20)) << 20
	c.TrustedProxies = l.prefixes("TRUSTED_PROXIES", v.TrustedProxies)
	c.CredentialQuota = l.within("FOREST_EXECUTOR_CREDENTIAL_QUOTA", v.CredentialQuota, 0, math.MaxInt32)
	c.LogLevel = v.LogLevel
	c.LogFormat = l.oneOf("LOG_FORMAT", v.LogFormat, "auto", "json", "text")
	if c.AllowLocalTokenEndpoints = v.AllowLocalTokenEndpoints; c.AllowLocalTokenEndpoints {
		l.warn("FOREST_EXECUTOR_ALLOW_LOCAL_TOKEN_ENDPOINTS admits token endpoints on this machine; it is for development")
	}
	c.AllowUniqueLocalTokenEndpoints = v.AllowUniqueLocalTokenEndpoints
	c.AccessTokens = l.oneOf("FOREST_EXECUTOR_ACCESS_TOKENS", v.AccessTokens, "on", "off") == "on"
	if c.GrantTimeout = time.Duration(v.GrantTimeout); c.GrantTimeout < leastGrantTimeout || c.GrantTimeout > mostGrantTimeout {
		l.wrong("FOREST_EXECUTOR_GRANT_TIMEOUT: want %s to %s, such as 15s", leastGrantTimeout, mostGrantTimeout)
	}
	if c.RefreshIdleAfter = time.Duration(v.RefreshIdleAfter); c.RefreshIdleAfter != 0 && c.RefreshIdleAfter < leastIdle {
		l.wrong("FOREST_EXECUTOR_REFRESH_IDLE_AFTER: want 1h or more, such as 30d, or 0 for never")
	}
	c.TokenEndpointCA = l.authorities("FOREST_EXECUTOR_TOKEN_ENDPOINT_CA", v.TokenEndpointCA)
	l.servers(v)
}

// servers reads where the directory of MCP servers comes from.
func (l *loader) servers(v *variables) {
	c := l.cfg
	c.MCPServersFile, c.ForestServerURL = v.MCPServersFile, v.ForestServerURL
	secret, _ := l.valueOrFile("FOREST_ENV_SECRET", v.ForestEnvSecret, v.ForestEnvSecretFile)
	if strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		l.wrong("FOREST_ENV_SECRET: holds a space or a character outside ASCII, which no header takes; copy it again from Forest")
		return
	}
	c.ForestEnvSecret = core.Secret(secret)
}

// authorities reads certificates of authorities from a file.
func (l *loader) authorities(name, path string) []byte {
	if path == "" {
		return nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		l.wrong("%s: the file cannot be read; want the path of a file with certificates in PEM", name)
		return nil
	}
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		l.wrong("%s: the file holds no certificate in PEM", name)
	}
	return pem
}

func (l *loader) keys(v *variables) {
	c := l.cfg
	c.EncryptionKey, c.EncryptionKeyFile = core.SecretBytes(v.EncryptionKey), l.keyFile("FOREST_EXECUTOR_ENCRYPTION_KEY_FILE", v.EncryptionKeyFile)
	if v.PreviousKeys != "" {
		for key := range strings.SplitSeq(v.PreviousKeys, ",") {
			c.PreviousKeys = append(c.PreviousKeys, core.SecretBytes(key))
		}
	}
	c.PreviousKeysFile = l.keyFile("FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS_FILE", v.PreviousKeysFile)
	c.AllowWeakKey = v.AllowWeakKey
	c.KeyProvider = v.KeyProvider
	c.PluginDir, c.PluginLock = v.PluginDir, v.PluginLock
	c.PreviousKeyProviders, c.RecoveryKeyProviders = list(v.PreviousKeyProviders), list(v.RecoveryKeyProviders)
	c.AutoRewrap = v.AutoRewrap
	if c.DataKeyMaxAge = time.Duration(v.DataKeyMaxAge); c.DataKeyMaxAge != 0 && c.DataKeyMaxAge < leastMaxAge {
		l.wrong("FOREST_EXECUTOR_DATA_KEY_MAX_AGE: want 1h or more, such as 90d, or 0 for never")
	}
	c.OutageBudget = time.Duration(v.OutageBudget)
	c.StoreID = v.StoreID
	c.WriteLegacy = l.oneOf("FOREST_EXECUTOR_WRITE_FORMAT", v.WriteFormat, "1", "legacy") == "legacy"
	c.LegacyClosed = l.oneOf("FOREST_EXECUTOR_LEGACY", v.Legacy, "", "closed") == "closed"
	if c.WriteLegacy && c.LegacyClosed {
		l.wrong("FOREST_EXECUTOR_WRITE_FORMAT=legacy and FOREST_EXECUTOR_LEGACY=closed contradict each other; unset one of them")
	}
	if c.WriteLegacy && v.EncryptionKey == "" && v.EncryptionKeyFile == "" {
		l.wrong("FOREST_EXECUTOR_WRITE_FORMAT=legacy: legacy records are sealed under the env key; set FOREST_EXECUTOR_ENCRYPTION_KEY or FOREST_EXECUTOR_ENCRYPTION_KEY_FILE")
	}
}
