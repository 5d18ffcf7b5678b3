package pgtest

import (
	"fmt"
	"net"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

const bouncerPidFile = "pid"

// PgBouncer starts PgBouncer in transaction mode in front of the cluster, with
// at most serverConns connections to each database, and returns a function from
// a URL of the cluster to that of the same database behind PgBouncer. Further settings
// are lines of its configuration, and win. It ends with the test.
func (c *Cluster) PgBouncer(tb testing.TB, serverConns int, settings ...string) func(databaseURL string) string {
	tb.Helper()
	program := bouncer(tb)
	h, end := newHome(tb, bouncerPidFile)
	tb.Cleanup(end)
	port := freePort(tb)
	server := "host=" + c.dir
	if c.port != 0 {
		server += " port=" + strconv.Itoa(c.port)
	}
	h.write(tb, "ini", fmt.Sprintf(`
[databases]
* = %s user=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = %d
max_client_conn = 500
logfile = %s/%s
pidfile = %s/%s
%s
`, server, Superuser, port, serverConns, h.dir, logFile, h.dir, bouncerPidFile, strings.Join(settings, "\n")))
	h.run(tb, program, "-d", "ini")
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	Eventually(tb, "PgBouncer listens", func() bool { return answers(address) })
	return func(databaseURL string) string {
		u, err := url.Parse(databaseURL)
		if err != nil {
			tb.Fatal(err)
		}
		u.Host, u.RawQuery = address, "sslmode=disable"
		return u.String()
	}
}

func bouncer(tb testing.TB) string {
	tb.Helper()
	for _, name := range []string{"/usr/sbin/pgbouncer", "pgbouncer"} {
		if program, err := exec.LookPath(name); err == nil {
			return program
		}
	}
	missing(tb, "PgBouncer", "pgbouncer")
	return ""
}

func answers(address string) bool {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}
