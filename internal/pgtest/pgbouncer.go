package pgtest

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

const bouncerPidFile = "pid"

// Bouncer is a PgBouncer in front of a cluster.
type Bouncer struct {
	home
	tb      testing.TB
	program string
	address string
}

// PgBouncer starts PgBouncer in transaction mode in front of the cluster, with
// at most serverConns connections to each database, and returns a function from
// a URL of the cluster to that of the same database behind PgBouncer. Further settings
// are lines of its configuration, and win. It ends with the test.
func (c *Cluster) PgBouncer(tb testing.TB, serverConns int, settings ...string) func(databaseURL string) string {
	tb.Helper()
	return c.NewBouncer(tb, serverConns, settings...).URL
}

// NewBouncer is PgBouncer for a test that ends it and starts it again. Its console, the
// database "pgbouncer", is Superuser's.
func (c *Cluster) NewBouncer(tb testing.TB, serverConns int, settings ...string) *Bouncer {
	tb.Helper()
	b := &Bouncer{tb: tb, program: bouncer(tb)}
	var end func()
	b.home, end = newHome(tb, bouncerPidFile)
	tb.Cleanup(end)
	port := freePort(tb)
	b.address = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	server := "host=" + c.dir
	if c.port != 0 {
		server += " port=" + strconv.Itoa(c.port)
	}
	b.write(tb, "ini", fmt.Sprintf(`
[databases]
* = %s user=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
admin_users = %s
pool_mode = transaction
default_pool_size = %d
max_client_conn = 500
server_login_retry = 1
logfile = %s/%s
pidfile = %s/%s
%s
`, server, Superuser, port, Superuser, serverConns, b.dir, logFile, b.dir, bouncerPidFile, strings.Join(settings, "\n")))
	b.Start()
	return b
}

// Start starts PgBouncer, on the same port, and returns when it listens.
func (b *Bouncer) Start() {
	b.tb.Helper()
	b.run(b.tb, b.program, "-d", "ini")
	Eventually(b.tb, "PgBouncer listens", func() bool { return answers(b.address) })
}

// Kill ends PgBouncer with SIGKILL, and all connections through it.
func (b *Bouncer) Kill() {
	b.tb.Helper()
	path := filepath.Join(b.dir, bouncerPidFile)
	text, err := os.ReadFile(path)
	if err != nil {
		b.tb.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		b.tb.Fatalf("%s holds no process ID", bouncerPidFile)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		b.tb.Fatal(err)
	}
	waitGone(b.tb, pid)
	if err := os.Remove(path); err != nil {
		b.tb.Fatal(err)
	}
}

// URL returns the URL of the same database behind PgBouncer.
func (b *Bouncer) URL(databaseURL string) string {
	b.tb.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		b.tb.Fatal(err)
	}
	u.Host, u.RawQuery = b.address, "sslmode=disable"
	return u.String()
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
