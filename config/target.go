package config

import "errors"

// DatabaseAt returns the database that a URL names, in the form of DATABASE_URL, with the
// rest of its settings as in c: the schema, and how a connection is protected. The
// error joins everything that is wrong with it, a line each, and does not repeat the URL.
func (c *Config) DatabaseAt(url string) (Database, error) {
	l := &loader{cfg: &Config{Database: c.Database}}
	db := &l.cfg.Database
	db.Path, db.Memory, db.URL = "", false, ""
	if url == "" {
		l.wrong("want postgres://user@host:port/database or sqlite:PATH")
	} else {
		l.fromURL(url)
	}
	if db.Driver == Postgres {
		l.postgresOnly(db)
	}
	return *db, errors.Join(l.errs...)
}
