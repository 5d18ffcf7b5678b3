// Package config turns the environment, and a .env file beside it, into one
// checked Config. It exists so that a mistake is found at the start and named with
// its remedy, all mistakes at once, instead of one at a time or at three in the
// morning; and so that nothing else in the program reads the environment.
//
// Values that may be secret never appear in an error. The bytes of a key are kept
// exactly as the environment has them: what is not UTF-8 stays so, and nothing is
// trimmed.
package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"github.com/lockwood-kms/lockwood/core"
)

// Config is the whole configuration. It is not changed after Load.
type Config struct {
	AuthSecret core.Secret // signs the tokens of callers
	Database   Database
	// Further are databases that a command opens besides: a file that it examines, the
	// target of a copy. Load leaves it empty.
	Further []Database

	HTTPHost   string // empty: all interfaces
	HTTPPort   int    // zero: any free one
	AdminAddr  string // host:port of the second listener; empty: off
	DrainGrace time.Duration
	// RateLimit is how many requests a user may make in a second; zero: any.
	RateLimit float64
	// HTTPMaxConnections is how many connections may be open at the same time.
	HTTPMaxConnections int
	// HTTPMaxMemory is how many bytes all requests together may hold.
	HTTPMaxMemory int64
	// TrustedProxies are the addresses whose X-Forwarded-For and X-Request-Id count.
	TrustedProxies []netip.Prefix
	// CredentialQuota is how many credentials a user may have; zero: any number.
	CredentialQuota int
	LogLevel        slog.Level
	LogFormat       string // "json", "text", or "auto": text on a terminal, JSON elsewhere
	// AllowLocalTokenEndpoints admits token endpoints on this machine and
	// without TLS, for development.
	AllowLocalTokenEndpoints bool
	// AllowUniqueLocalTokenEndpoints admits token endpoints in fc00::/7, the
	// addresses of private IPv6 networks.
	AllowUniqueLocalTokenEndpoints bool
	// AccessTokens says that access tokens are fetched and given out.
	AccessTokens bool
	// GrantTimeout is how long a request to a token endpoint may take.
	GrantTimeout time.Duration
	// RefreshIdleAfter is how long a credential may go without a grant before one is made
	// to keep its refresh token alive, 0 for ever.
	RefreshIdleAfter time.Duration
	// TokenEndpointCA holds the authorities, beside those of the system, that the
	// certificates of token endpoints, MCP servers and Forest are checked against, in
	// PEM; nil: none.
	TokenEndpointCA []byte
	// MCPServersFile is the path of the operator's directory of MCP servers; empty: none.
	MCPServersFile string
	// ForestServerURL is Forest's server, which is asked for MCP servers with
	// ForestEnvSecret; without the secret it is not.
	ForestServerURL string
	ForestEnvSecret core.Secret

	KeyProvider string // key URI of the KEK that wraps
	// PreviousKeyProviders are the key URIs of KEKs that may still unwrap.
	PreviousKeyProviders []string
	// RecoveryKeyProviders are the key URIs of further KEKs that wrap every data
	// key.
	RecoveryKeyProviders []string
	// AutoRewrap says that instances add the wraps that are missing by themselves.
	AutoRewrap bool
	// DataKeyMaxAge is the age at which the primary data key is rolled; zero: never.
	DataKeyMaxAge time.Duration
	// StoreID is the ID of the store that the database has to hold; empty: any.
	StoreID string
	// PluginDir holds the plugins' binaries, and PluginLock their pins. Empty is
	// beside the program: plugins and plugins.lock.
	PluginDir, PluginLock string

	EncryptionKey     core.SecretBytes
	EncryptionKeyFile string
	PreviousKeys      []core.SecretBytes
	PreviousKeysFile  string
	AllowWeakKey      bool
	OutageBudget      time.Duration
	WriteLegacy       bool // seal in upstream's format
	LegacyClosed      bool // refuse legacy records, whatever the store says

	// SecretFiles are the files that hold one of the secrets above.
	SecretFiles []SecretFile

	// EnvFile is the path of the .env file, whether it exists or not; empty: none.
	EnvFile string

	// Environ is the environment with what the .env file adds, each NAME=value:
	// what a plugin may see part of.
	Environ []core.Secret
	// Warnings are conditions to tell at every start. They hold no secret.
	Warnings []string
}

// SecretFile is a file that holds a secret.
type SecretFile struct {
	Variable string // that names it
	Path     string
}

// Driver is the kind of database.
type Driver string

// The drivers.
const (
	SQLite   Driver = "sqlite"
	Postgres Driver = "postgres"
)

// Database says which database and how to reach it.
type Database struct {
	Driver Driver
	// Path is SQLite's file; Memory says that there is none and nothing lasts.
	Path   string
	Memory bool
	// URL is PostgreSQL's, password included.
	URL    core.Secret
	Schema string
	// SSL is "true" (the server's certificate is verified), "no-verify" or
	// "false"; an sslmode in URL wins. SSLCA is a file of roots.
	SSL, SSLCA string
	// PreparedStatements says whether PostgreSQL keeps prepared statements: "auto",
	// "true" or "false".
	PreparedStatements string
}

// LogValue shows what is no secret.
func (c *Config) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("database", string(c.Database.Driver)),
		slog.String("key_provider", c.KeyProvider),
		slog.Bool("write_legacy", c.WriteLegacy),
		slog.String("config_hash", c.Hash()),
	)
}

// String is LogValue as text, so that printing a Config shows no secret.
func (c *Config) String() string { return c.LogValue().String() }

// Hash returns 16 hexadecimal digits over everything that instances on one store
// should have in common and that is no secret: not addresses, paths or levels of
// logging. Two instances with the same hash still may have different keys; their
// KEK IDs tell.
func (c *Config) Hash() string {
	h := sha256.New()
	for _, v := range []any{
		c.KeyProvider, c.PreviousKeyProviders, c.RecoveryKeyProviders, c.AutoRewrap, c.DataKeyMaxAge, c.AllowWeakKey, c.OutageBudget, c.WriteLegacy, c.LegacyClosed,
		c.AllowLocalTokenEndpoints, c.AllowUniqueLocalTokenEndpoints, c.AccessTokens, c.GrantTimeout, c.RefreshIdleAfter, c.ForestEnvSecret != "", c.ForestServerURL, c.RateLimit, c.CredentialQuota, c.Database.Driver, c.Database.Schema,
	} {
		_, _ = io.WriteString(h, fmt.Sprintf("%q\n", fmt.Sprint(v)))
	}
	if c.StoreID != "" { // so that the hash is the one of a version which did not know of it
		_, _ = io.WriteString(h, fmt.Sprintf("store %q\n", c.StoreID))
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
