package pgtest

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Superuser is the role that a cluster starts with. It has the right to
// everything and, unless Options.HBA says otherwise, needs no password.
const Superuser = "postgres"

// Options are the settings of a cluster. The zero value is a server as in
// production, reached by a Unix socket.
type Options struct {
	// NoSync turns fsync off: faster, and no longer durable.
	NoSync bool
	// TCP makes the server listen on a free port of the loopback interface too.
	TCP bool
	// Certificate and Key are PEM; with both, the server offers TLS.
	Certificate, Key string
	// HBA is the text of pg_hba.conf; empty trusts everyone.
	HBA string
	// Settings are further settings of the server, by name.
	Settings map[string]string
}

// Cluster is a running PostgreSQL server with its data. It is safe for
// concurrent use, but for stopping and starting it.
type Cluster struct {
	home
	programs string
	port     int // of TCP; 0 if it does not listen there
	end      func()
}

const pidFile = "data/postmaster.pid"

// shared is the cluster of Shared. Nothing stops it but the end of the process.
var shared struct {
	sync.Mutex
	cluster *Cluster
}

// Shared returns a cluster that all tests of the process share: one start for
// many tests, each with a database of its own. Do not stop it.
func Shared(tb testing.TB) *Cluster {
	tb.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster == nil {
		shared.cluster = start(tb, Options{Settings: map[string]string{"max_connections": "300"}})
	}
	return shared.cluster
}

// Start makes and starts a cluster of the test's own, which ends with the test.
func Start(tb testing.TB, opts *Options) *Cluster {
	tb.Helper()
	if opts == nil {
		opts = &Options{}
	}
	c := start(tb, *opts)
	tb.Cleanup(c.end)
	return c
}

func start(tb testing.TB, opts Options) *Cluster {
	tb.Helper()
	c := &Cluster{programs: programs(tb)}
	c.home, c.end = newHome(tb, pidFile)
	c.initialise(tb)
	c.configure(tb, opts)
	c.Start(tb)
	return c
}

// Programs returns the directory of PostgreSQL's programs, those of a client too.
func (c *Cluster) Programs() string { return c.programs }

func (c *Cluster) program(name string) string { return filepath.Join(c.programs, name) }

func (c *Cluster) configure(tb testing.TB, opts Options) {
	tb.Helper()
	var conf strings.Builder
	set := func(name, value string) { fmt.Fprintf(&conf, "%s = %s\n", name, quoted(value)) }
	set("unix_socket_directories", c.dir)
	set("listen_addresses", "")
	if opts.TCP {
		c.port = freePort(tb)
		set("listen_addresses", "127.0.0.1")
		set("port", strconv.Itoa(c.port))
	}
	if opts.NoSync {
		set("fsync", "off")
	}
	if opts.Certificate != "" {
		set("ssl", "on")
		set("ssl_cert_file", c.write(tb, "server.crt", opts.Certificate))
		set("ssl_key_file", c.write(tb, "server.key", opts.Key))
	}
	for name, value := range opts.Settings {
		set(name, value)
	}
	c.write(tb, "data/postgresql.auto.conf", conf.String())
	if opts.HBA != "" {
		c.write(tb, "data/pg_hba.conf", opts.HBA)
	}
}

// Start starts the server again, on the same socket and port, and returns when
// it accepts connections.
func (c *Cluster) Start(tb testing.TB) {
	tb.Helper()
	c.run(tb, c.program("pg_ctl"), "-D", "data", "-s", "-w", "-t", "60", "-l", logFile, "start")
}

// Stop shuts the server down; open connections are ended.
func (c *Cluster) Stop(tb testing.TB) {
	tb.Helper()
	c.run(tb, c.program("pg_ctl"), "-D", "data", "-s", "-w", "-t", "60", "-m", "fast", "stop")
}

// Restart is Stop and Start.
func (c *Cluster) Restart(tb testing.TB) {
	tb.Helper()
	c.Stop(tb)
	c.Start(tb)
}

// Kill ends the server with SIGKILL, as the loss of its machine would, except
// that the kernel still has what was written without a sync. It returns when all
// processes of the server are gone.
func (c *Cluster) Kill(tb testing.TB) {
	tb.Helper()
	pid := c.postmaster(tb)
	children := childrenOf(pid)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		tb.Fatal(err)
	}
	for _, p := range children {
		_ = syscall.Kill(p, syscall.SIGKILL) // it may have ended with its parent
	}
	for _, p := range append(children, pid) {
		waitGone(tb, p)
	}
	// The number may soon be another process's. The socket's lock has it too.
	sockets, _ := filepath.Glob(filepath.Join(c.dir, ".s.PGSQL.*"))
	for _, file := range append(sockets, filepath.Join(c.dir, pidFile)) {
		if err := os.Remove(file); err != nil {
			tb.Fatal(err)
		}
	}
}

// postmaster is the process ID of the running server.
func (c *Cluster) postmaster(tb testing.TB) int {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, pidFile))
	if err != nil {
		tb.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil || pid <= 1 {
		tb.Fatalf("%s holds no process ID", pidFile)
	}
	return pid
}

// childrenOf returns the children of a process, which end by themselves once it
// has.
func childrenOf(pid int) []int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	var children []int
	for field := range strings.FieldsSeq(string(text)) {
		if p, err := strconv.Atoi(field); err == nil {
			children = append(children, p)
		}
	}
	return children
}

// waitGone returns once no process has the number, or only one that has ended.
func waitGone(tb testing.TB, pid int) {
	tb.Helper()
	Eventually(tb, "the server's processes end", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}

// Dir is the directory with the server's data and log. Its socket is there too.
func (c *Cluster) Dir() string { return c.dir }

// Port is the TCP port, or 0 if the server listens on its socket only.
func (c *Cluster) Port() int { return c.port }

// URL returns the connection URL of a database for a role, by the Unix socket.
func (c *Cluster) URL(role, database string) string {
	u := url.URL{Scheme: "postgres", User: url.User(role), Path: "/" + database}
	query := url.Values{"host": {c.dir}}
	if c.port != 0 {
		query.Set("port", strconv.Itoa(c.port)) // it is in the socket's name too
	}
	u.RawQuery = query.Encode()
	return u.String()
}

const (
	// patience is how long Eventually waits: what takes a moment takes many on a machine
	// that others use too.
	patience = 2 * time.Minute
	// firstPause and longestPause are between its polls, of which each is a fifth longer
	// than the one before: who waits for seconds should not keep the processors busy.
	firstPause   = 5 * time.Millisecond
	longestPause = 100 * time.Millisecond
)

// Eventually polls until ok, and fails the test after a generous while.
func Eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	deadline := time.After(patience)
	for pause := firstPause; !ok(); pause = min(pause+pause/5, longestPause) {
		select {
		case <-deadline:
			tb.Fatalf("not seen in time: %s", what)
		case <-time.After(pause):
		}
	}
}
