package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockwood-kms/lockwood/core"
)

// DefaultSchema is the schema that upstream uses, and so the default.
const DefaultSchema = "forest"

// Connections of one instance to the database.
const (
	defaultMaxConns = 16
	// minMaxConns is the least with which a migration can run: one connection
	// holds the lock, another does the work.
	minMaxConns = 2
)

// cachedStatements is how many statements pgx keeps for a connection, more than there
// are.
const cachedStatements = 512

// defaultConnectTimeout bounds one attempt to connect, unless the URL does.
const defaultConnectTimeout = 5 * time.Second

// Config says which database and how to reach it.
type Config struct {
	// URL is postgres://user:password@host:port/database?…, or the keyword form
	// of libpq.
	URL core.Secret
	// Schema holds all tables: letters, digits, '_' and '$', at most 63
	// characters, and no digit or '$' first. Empty is DefaultSchema.
	Schema string
	// SSL says how the connection is protected, where the URL has neither sslmode nor
	// ssl: "true" or empty verifies the server's certificate and its name, "no-verify"
	// encrypts without verifying, "false" does not encrypt. It does not apply to
	// a Unix socket. Where the URL asks for less, Examine says so.
	SSL string
	// SSLCA is a file of PEM certificates to verify against instead of the
	// system's roots, wherever the certificate is verified. An sslrootcert in the URL
	// wins.
	SSLCA string
	// MaxConns is the most connections that are held; at least 2. Zero is
	// pool_max_conns in the URL, or else 16.
	MaxConns int32
	// PreparedStatements says whether the server keeps prepared statements: "true",
	// "false", or "auto" or empty, where they are given up for good once the server, or
	// a pooler before it, does not know one.
	PreparedStatements string
	// Logger is told when that happens; nil discards it.
	Logger *slog.Logger
	// Tracer, if not nil, is told of every statement: for tracing, and for tests
	// that stop at one.
	Tracer pgx.QueryTracer
}

var schemaPattern = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_$]*$`)

// maxSchemaSize is the length to which PostgreSQL cuts names.
const maxSchemaSize = 63

// schema returns the schema's name, checked. It is rendered into SQL, so nothing
// but the pattern passes.
func (c Config) schema() (string, error) {
	if c.Schema == "" {
		return DefaultSchema, nil
	}
	if len(c.Schema) > maxSchemaSize || !schemaPattern.MatchString(c.Schema) {
		return "", fmt.Errorf("the schema must match %s and have at most %d characters", schemaPattern, maxSchemaSize)
	}
	return c.Schema, nil
}

// errURL does not repeat the URL, nor what its parser says of it: either may hold
// the password.
var errURL = errors.New("the connection URL, or a file it names, cannot be used; " +
	"want postgres://user:password@host:port/database with every special character in user and password percent-encoded, " +
	"and sslmode one of disable, allow, prefer, require, no-verify, verify-ca, verify-full")

// pool returns the settings of the connection pool.
func (c Config) pool() (*pgxpool.Config, error) {
	dsn, err := c.connString()
	if err != nil {
		return nil, err
	}
	if hasManyHosts(dsn) && !hasSetting(dsn, "target_session_attrs") {
		// After a failover the former primary may answer still.
		dsn = withSetting(dsn, "target_session_attrs", "read-write")
	}
	p, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, errURL
	}
	switch {
	case c.MaxConns != 0:
		p.MaxConns = c.MaxConns
	case !hasSetting(string(c.URL), "pool_max_conns"):
		p.MaxConns = defaultMaxConns
	}
	if p.MaxConns < minMaxConns {
		return nil, fmt.Errorf("%d connections are too few: a migration holds a lock on one and works on another, so at least %d are needed", p.MaxConns, minMaxConns)
	}
	conn := p.ConnConfig
	if !hasSetting(string(c.URL), "connect_timeout") {
		conn.ConnectTimeout = defaultConnectTimeout
	}
	// Whatever the server, the database, the role or the URL say: what is bound into a
	// record are the bytes of UTF-8, so these have to come back. Poolers know this
	// parameter.
	conn.RuntimeParams["client_encoding"] = "UTF8"
	if conn.RuntimeParams["application_name"] == "" {
		conn.RuntimeParams["application_name"] = "lockwood"
	}
	// Whatever the URL says, as it may for a pooler: each call names its mode.
	conn.DefaultQueryExecMode, conn.StatementCacheCapacity, conn.DescriptionCacheCapacity = unnamed, cachedStatements, cachedStatements
	conn.Tracer = c.Tracer
	conn.OnNotice = noteUnreplicated
	conn.DialFunc = newSilence(conn.DialFunc).Dial
	p.BeforeConnect = func(_ context.Context, next *pgx.ConnConfig) error {
		// A file of passwords is read anew for each connection: the password may have
		// been changed since.
		if fresh, err := pgxpool.ParseConfig(dsn); err == nil {
			next.Password = fresh.ConnConfig.Password
		}
		return nil
	}
	return p, nil
}

func isURL(dsn string) bool {
	return strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://")
}

var keywordSetting = regexp.MustCompile(`(?:^|\s)(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|\S*)`)

// settings returns the values of a setting of the connection string. Only the form is
// looked at here; what it means, and whether it is right, is for pgx.
func settings(dsn, name string) (values []string) {
	if isURL(dsn) {
		_, query, _ := strings.Cut(dsn, "?")
		all, _ := url.ParseQuery(query)
		return all[name]
	}
	for _, m := range keywordSetting.FindAllStringSubmatch(dsn, -1) {
		if m[1] == name {
			values = append(values, strings.Trim(m[2], "'"))
		}
	}
	return values
}

func hasSetting(dsn, name string) bool { return len(settings(dsn, name)) > 0 }

func withoutSetting(dsn, name string) string {
	if !isURL(dsn) {
		return keywordSetting.ReplaceAllStringFunc(dsn, func(text string) string {
			if m := keywordSetting.FindStringSubmatch(text); m[1] == name {
				return ""
			}
			return text
		})
	}
	head, query, found := strings.Cut(dsn, "?")
	if !found {
		return dsn
	}
	kept := slices.DeleteFunc(strings.Split(query, "&"), func(pair string) bool {
		key, _, _ := strings.Cut(pair, "=")
		key, err := url.QueryUnescape(key)
		return err == nil && key == name
	})
	return head + "?" + strings.Join(kept, "&")
}

func withSetting(dsn, name, value string) string {
	if !isURL(dsn) {
		return dsn + " " + name + "='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
	}
	separator := "?"
	switch {
	case strings.HasSuffix(dsn, "?") || strings.HasSuffix(dsn, "&"):
		separator = ""
	case strings.Contains(dsn, "?"):
		separator = "&"
	}
	return dsn + separator + name + "=" + url.QueryEscape(value)
}
