package main

import (
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lockwood-kms/lockwood/config"
	"github.com/lockwood-kms/lockwood/core"
)

// secretFile is a file that holds a secret, and what names it.
type secretFile struct{ named, path string }

// secretFiles returns the files of keys, tokens and passwords that cfg names, also by
// its key URIs and the URL of the database.
func secretFiles(cfg *config.Config) (files []secretFile) {
	for _, f := range cfg.SecretFiles {
		files = append(files, secretFile{f.Variable, f.Path})
	}
	for _, text := range slices.Concat([]string{cfg.KeyProvider}, cfg.PreviousKeyProviders, cfg.RecoveryKeyProviders) {
		uri, err := core.ParseKeyURI(text)
		if err != nil {
			continue
		}
		for option, path := range uri.Options {
			if strings.HasSuffix(option, "_file") || option == "client_key" {
				files = append(files, secretFile{"the option " + option + " of a key URI", path})
			}
		}
	}
	if u, err := url.Parse(string(cfg.Database.URL)); err == nil {
		for _, parameter := range []string{"passfile", "sslkey"} {
			files = append(files, secretFile{parameter + " in DATABASE_URL", u.Query().Get(parameter)})
		}
	}
	slices.SortFunc(files, func(a, b secretFile) int { return strings.Compare(a.named+a.path, b.named+b.path) })
	return slices.Compact(files)
}

// hiddenFiles returns the files that no plugin may read: those of the secrets, that
// of the variables, and the embedded database.
func hiddenFiles(cfg *config.Config) (paths []string) {
	for _, f := range secretFiles(cfg) {
		paths = append(paths, f.path)
	}
	paths = append(paths, cfg.EnvFile)
	switch db := &cfg.Database; {
	case db.Driver == config.Postgres:
		paths = append(paths, passwordFiles(cfg)...)
	case !db.Memory:
		for _, suffix := range []string{"", "-wal", "-shm", "-journal"} { // https://sqlite.org/tempfiles.html
			paths = append(paths, db.Path+suffix)
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

// checkFiles warns of secrets that every user of the machine can read. The owner's
// group may: so Kubernetes and systemd hand secrets to a user.
func checkFiles(cfg *config.Config) (findings []finding) {
	for _, f := range secretFiles(cfg) {
		info, err := os.Stat(f.path)
		if f.path == "" || err != nil || !openToOthers(f.path, info) {
			continue // what cannot be read is told by whatever needs it
		}
		findings = append(findings, finding{
			"secret file", verdictWarn, fmt.Sprintf("other users can read or change %s (%s, mode %04o)", f.path, f.named, info.Mode().Perm()),
			"run: chmod o= " + quoted(f.path) + "; in Kubernetes, set defaultMode: 0440 in the volume",
		})
	}
	return findings
}

// openToOthers reports whether others than the owner and the group can read or write
// the file at path, of which info tells. Its directory may keep them out.
func openToOthers(path string, info fs.FileInfo) bool {
	if !grants(info, 0o006) {
		return false
	}
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return true
	}
	dir, err := os.Stat(filepath.Dir(target))
	return err != nil || dir.Mode().Perm()&0o001 != 0
}
