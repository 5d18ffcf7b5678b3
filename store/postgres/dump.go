package postgres

import (
	"cmp"
	"net"
	"path/filepath"
	"strings"
)

// DumpCommand returns the words of the pg_dump command that writes a whole backup to file:
// the schema with its tables, functions, triggers and sequences. What belongs to running
// instances is left out. It holds no password; pg_dump finds one where libpq looks: the
// passfile, PGPASSWORD, or a prompt
// (https://www.postgresql.org/docs/current/app-pgdump.html). Its error is that of Open.
func (c Config) DumpCommand(file string) ([]string, error) {
	place, err := c.Place()
	if err != nil {
		return nil, err
	}
	pool, err := c.pool()
	if err != nil {
		return nil, err
	}
	dsn, err := c.connString()
	if err != nil {
		return nil, err
	}
	mode, err := c.sslMode()
	if err != nil {
		return nil, err
	}
	var hosts, ports []string
	for _, address := range place.Addresses {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, errURL
		}
		hosts, ports = append(hosts, host), append(ports, port)
	}
	conninfo := ""
	add := func(name, value string) {
		if value != "" {
			conninfo = strings.TrimSpace(conninfo + " " + name + "=" + conninfoValue(value))
		}
	}
	add("host", strings.Join(hosts, ","))
	add("port", strings.Join(ports, ","))
	add("user", pool.ConnConfig.User)
	add("dbname", place.Database)
	if !filepath.IsAbs(hosts[0]) { // TLS does not apply to a Unix socket
		add("sslmode", mode)
	}
	if strings.HasPrefix(mode, "verify-") && !hasSetting(dsn, "sslrootcert") {
		add("sslrootcert", "system") // the system's roots, for libpq 16 and later
	}
	for _, name := range []string{"sslrootcert", "sslcert", "sslkey", "passfile"} {
		add(name, cmp.Or(append(settings(dsn, name), "")...))
	}
	if len(hosts) > 1 {
		add("target_session_attrs", "read-write")
	}
	schema := `"` + place.Schema + `"`
	return []string{
		"pg_dump", "--format=custom", "--no-owner", "--no-privileges", "--file=" + file, "--schema=" + schema,
		"--exclude-table-data=" + schema + ".lockwood_instances", "--dbname=" + conninfo,
	}, nil
}

// conninfoValue is a value in a connection string of keywords
// (https://www.postgresql.org/docs/current/libpq-connect.html, section 34.1.1.1).
func conninfoValue(v string) string {
	if !strings.ContainsAny(v, ` '\`) {
		return v
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'"
}
