package wiring

import (
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lockwood-kms/lockwood/config"
	"github.com/lockwood-kms/lockwood/core"
)

// SecretFile is a file that holds a secret.
type SecretFile struct {
	Named string // what names it: a variable, or a part of one
	Path  string
}

// SecretFiles returns the files of keys, tokens and passwords that cfg names, also by
// its key URIs and the URL of the database.
func SecretFiles(cfg *config.Config) (files []SecretFile) {
	for _, f := range cfg.SecretFiles {
		files = append(files, SecretFile{f.Variable, f.Path})
	}
	for _, text := range slices.Concat([]string{cfg.KeyProvider}, cfg.PreviousKeyProviders, cfg.RecoveryKeyProviders) {
		uri, err := core.ParseKeyURI(text)
		if err != nil {
			continue
		}
		for option, path := range uri.Options {
			if strings.HasSuffix(option, "_file") || option == "client_key" {
				files = append(files, SecretFile{"the option " + option + " of a key URI", path})
			}
		}
	}
	for parameter, path := range urlFiles(&cfg.Database) {
		files = append(files, SecretFile{parameter + " in DATABASE_URL", path})
	}
	slices.SortFunc(files, func(a, b SecretFile) int { return strings.Compare(a.Named+a.Path, b.Named+b.Path) })
	return slices.Compact(files)
}

// urlFiles returns the files of secrets that the URL of a database names, by parameter.
func urlFiles(db *config.Database) map[string]string {
	u, err := url.Parse(string(db.URL))
	if err != nil {
		return nil
	}
	files := make(map[string]string)
	for _, parameter := range []string{"passfile", "sslkey"} {
		files[parameter] = u.Query().Get(parameter)
	}
	return files
}

// HiddenFiles returns the files that no plugin may read: those of the secrets, that
// of the variables, and the embedded databases.
func HiddenFiles(cfg *config.Config) (paths []string) {
	for _, f := range SecretFiles(cfg) {
		paths = append(paths, f.Path)
	}
	paths = append(paths, cfg.EnvFile)
	for _, db := range append([]config.Database{cfg.Database}, cfg.Further...) {
		switch {
		case db.Driver == config.Postgres:
			paths = append(paths, passwordFiles(cfg)...)
			paths = slices.AppendSeq(paths, maps.Values(urlFiles(&db)))
		case !db.Memory:
			for _, suffix := range []string{"", "-wal", "-shm", "-journal"} { // https://sqlite.org/tempfiles.html
				paths = append(paths, db.Path+suffix)
			}
		}
	}
	return slices.DeleteFunc(paths, func(path string) bool { return path == "" })
}

// passwordFiles returns where libpq, and pgx after it, look for the password and the
// key of a client when the URL names none: "The Password File" and "Client
// Certificates" of PostgreSQL's documentation.
func passwordFiles(cfg *config.Config) (paths []string) {
	for _, variable := range cfg.Environ {
		switch name, value, _ := strings.Cut(string(variable), "="); {
		case value == "":
		case name == "PGPASSFILE", name == "PGSERVICEFILE", name == "PGSSLKEY":
			paths = append(paths, value)
		case name == "HOME":
			for _, file := range []string{".pgpass", ".pg_service.conf", ".postgresql"} {
				paths = append(paths, filepath.Join(value, file))
			}
		}
	}
	return paths
}
