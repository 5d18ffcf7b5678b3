package postgres

import (
	"cmp"
	"net"
	"slices"
	"strconv"
)

// Place is where a database is. It holds no secret.
type Place struct {
	// Addresses are the hosts, each with its port, in the order in which they are
	// tried. The host of a Unix socket is its directory.
	Addresses        []string
	Database, Schema string
}

// Place returns where c leads, with the defaults that apply where URL leaves
// something out. It connects to nothing. Its error is that of Open.
func (c Config) Place() (Place, error) {
	schema, err := c.schema()
	if err != nil {
		return Place{}, err
	}
	pool, err := c.pool()
	if err != nil {
		return Place{}, err
	}
	conn := pool.ConnConfig
	place := Place{Database: cmp.Or(conn.Database, conn.User), Schema: schema}
	add := func(host string, port uint16) {
		if a := net.JoinHostPort(host, strconv.Itoa(int(port))); !slices.Contains(place.Addresses, a) {
			place.Addresses = append(place.Addresses, a)
		}
	}
	add(conn.Host, conn.Port)
	for _, f := range conn.Fallbacks { // a further host, or the same one without TLS
		add(f.Host, f.Port)
	}
	return place, nil
}
