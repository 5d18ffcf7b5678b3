package config

import (
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/lockwood-kms/lockwood/core"
)

// defaultPath is the embedded database.
const defaultPath = "lockwood.db"

var schemaPattern = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_$]{0,62}$`)

// database reads DATABASE_URL or, instead of it, the parts. The URL and the password
// may come from files.
func (l *loader) database(v *variables) {
	db := &l.cfg.Database
	db.Schema, db.SSLCA = v.DatabaseSchema, v.DatabaseSSLCA
	db.SSL = l.oneOf("DATABASE_SSL", v.DatabaseSSL, "true", "no-verify", "false")
	db.PreparedStatements = l.oneOf("DATABASE_PREPARED_STATEMENTS", v.PreparedStatements, "auto", "true", "false")
	url, readURL := l.valueOrFile("DATABASE_URL", v.DatabaseURL, v.DatabaseURLFile)
	if v.DatabaseURLFile != "" {
		url = l.clean("DATABASE_URL_FILE", url)
	}
	password, readPassword := l.valueOrFile("DATABASE_PASSWORD", v.DatabasePassword, v.DatabasePasswordFile)
	parts := v.DatabaseHost != "" || v.DatabasePort != 0 || v.DatabaseName != "" || v.DatabaseUser != "" || password != "" || !readPassword
	switch {
	case parts && (url != "" || !readURL):
		l.wrong("DATABASE_URL or DATABASE_URL_FILE is set, and so are some of DATABASE_HOST, _PORT, _NAME, _USER, _PASSWORD, _PASSWORD_FILE; use either the URL or the parts")
	case parts:
		l.fromParts(v, password)
	case !readURL:
	case url == "":
		l.embedded()
	default:
		l.fromURL(url)
	}
	if db.Driver == Postgres {
		l.postgresOnly(db)
	}
}

// embedded chooses the default. Where a variable names a database and is empty, as
// when what was to fill it in is missing, another one was meant.
func (l *loader) embedded() {
	l.cfg.Database.Driver, l.cfg.Database.Path = SQLite, defaultPath
	for _, name := range []string{"DATABASE_URL", "DATABASE_URL_FILE", "DATABASE_HOST", "DATABASE_NAME"} {
		if slices.Contains(l.empty, name) {
			l.warn("%s is set and empty, so the embedded database %s is used; set it to the database that is meant, or unset it", name, defaultPath)
		}
	}
}

// postgresOnly checks what has no meaning, and is ignored, with SQLite.
func (l *loader) postgresOnly(db *Database) {
	if !schemaPattern.MatchString(db.Schema) {
		l.wrong("DATABASE_SCHEMA: want letters, digits, _ and $, at most 63, and no digit or $ first")
	}
	if u, err := url.Parse(string(db.URL)); err == nil && u.Query().Get("sslmode")+u.Query().Get("ssl") != "" {
		return // it wins over the rest
	}
	if db.SSL == "no-verify" {
		l.warn("DATABASE_SSL=no-verify encrypts the connection and does not verify who is at its other end; set DATABASE_SSL_CA and DATABASE_SSL=true")
	}
	if db.SSLCA == "" {
		return
	}
	if _, err := os.ReadFile(db.SSLCA); err != nil {
		l.wrong("DATABASE_SSL_CA: the file cannot be read; name a file of PEM certificates, or unset it to use the system's roots")
	}
	if db.SSL != "true" {
		l.warn("DATABASE_SSL_CA has no effect with DATABASE_SSL=%s; set DATABASE_SSL=true to verify the server", db.SSL)
	}
}

func (l *loader) fromURL(text string) {
	db := &l.cfg.Database
	if path, ok := strings.CutPrefix(text, "sqlite:"); ok {
		l.fromPath(l.clean("DATABASE_URL: the path", path))
		return
	}
	db.Driver = Postgres
	if !isPostgresURL(text) {
		l.wrong("DATABASE_URL: want postgres://user:password@host:port/database (characters such as @, / and # in the password percent-encoded), sqlite:PATH or sqlite::memory:")
		return
	}
	db.URL = core.Secret(text)
	l.checkURL(text)
}

// fromPath reads what follows sqlite: in a URL.
func (l *loader) fromPath(path string) {
	db := &l.cfg.Database
	db.Driver, db.Path = SQLite, path
	switch {
	case path == ":memory:":
		db.Path, db.Memory = "", true
		l.warn("DATABASE_URL=sqlite::memory: keeps nothing: all credentials are gone when the process ends")
	case path == "" || strings.HasPrefix(path, "//") && !strings.HasPrefix(path, "///"):
		l.wrong("DATABASE_URL: after sqlite: comes the path of the file, such as sqlite:lockwood.db or sqlite:/var/lib/lockwood/lockwood.db")
	case strings.HasPrefix(path, "file:"):
		l.wrong("DATABASE_URL: write sqlite:PATH without file:, such as sqlite:/var/lib/lockwood/lockwood.db")
	case strings.Contains(path, "?"):
		l.wrong("DATABASE_URL: what follows ? would be part of the file's name, and sqlite: takes no options; write the path alone")
	default:
		db.Path = strings.TrimPrefix(path, "//")
	}
}

// checkURL looks at the parts of a URL of PostgreSQL as they are once decoded.
func (l *loader) checkURL(text string) {
	u, err := url.Parse(text)
	if err != nil {
		return // with several hosts
	}
	l.clean("DATABASE_URL: the user", u.User.Username())
	l.clean("DATABASE_URL: the host", u.Hostname())
	l.clean("DATABASE_URL: the name of the database", strings.TrimPrefix(u.Path, "/"))
	password, _ := u.User.Password()
	l.warnSurrounded("DATABASE_URL: the password", password, passwordRemedy)
}

// passwordRemedy is for a password that may hold too much.
const passwordRemedy = "remove it unless the role's password has it too"

// isPostgresURL reports whether text is a URL of PostgreSQL, as far as net/url can
// tell: it does not know several hosts with a port each, which drivers accept.
func isPostgresURL(text string) bool {
	scheme, rest, _ := strings.Cut(text, "://")
	if scheme != "postgres" && scheme != "postgresql" {
		return false
	}
	authority, _, _ := strings.Cut(rest, "/")
	if strings.Contains(authority, ",") {
		return true
	}
	u, err := url.Parse(text)
	return err == nil && u.Fragment == ""
}

func (l *loader) fromParts(v *variables, password string) {
	for _, part := range []struct{ name, value string }{
		{"DATABASE_HOST", v.DatabaseHost}, {"DATABASE_NAME", v.DatabaseName}, {"DATABASE_USER", v.DatabaseUser},
	} {
		switch {
		case part.value != "":
		case slices.Contains(l.links, part.name):
			l.wrong("%s: has the form of a Kubernetes service link (tcp://address:port), and other parts of the database's address are set; set it to a host name", part.name)
		default:
			l.wrong("%s: is not set, and other parts of the database's address are; set it, or use DATABASE_URL", part.name)
		}
	}
	host := strings.Trim(v.DatabaseHost, "[]")
	u := &url.URL{Scheme: "postgres", Host: host, Path: "/" + v.DatabaseName}
	if strings.Contains(host, ":") {
		u.Host = "[" + host + "]"
	}
	port := strconv.Itoa(int(v.DatabasePort))
	if v.DatabasePort != 0 {
		u.Host = net.JoinHostPort(host, port)
	}
	u.User = url.User(v.DatabaseUser)
	l.warnSurrounded("DATABASE_PASSWORD", password, passwordRemedy)
	if password != "" {
		u.User = url.UserPassword(v.DatabaseUser, password)
	}
	if strings.HasPrefix(v.DatabaseHost, "/") { // the directory of a Unix socket
		query := url.Values{"host": {v.DatabaseHost}}
		if v.DatabasePort != 0 {
			query.Set("port", port)
		}
		u.Host, u.RawQuery = "", query.Encode()
	}
	l.cfg.Database.Driver, l.cfg.Database.URL = Postgres, core.Secret(u.String())
}
