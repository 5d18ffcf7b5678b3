package pgtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// Standby starts a server that follows c by streaming replication, and makes c wait for
// it: a commit is answered once the standby has it on its disk. Both have the same
// databases. The standby ends with the test.
func (c *Cluster) Standby(tb testing.TB) *Cluster {
	tb.Helper()
	s := &Cluster{programs: c.programs}
	s.home, s.end = newHome(tb, pidFile)
	tb.Cleanup(s.end)
	if c.port != 0 {
		s.port = freePort(tb)
	}
	s.Rejoin(tb, c)
	c.WaitForStandby(tb)
	return s
}

// Rejoin makes a standby of primary out of c, with a copy of its data, on the socket and the
// port of c, which does not run, and starts it. A former primary comes back so.
func (c *Cluster) Rejoin(tb testing.TB, primary *Cluster) {
	tb.Helper()
	if err := os.RemoveAll(filepath.Join(c.dir, "data")); err != nil {
		tb.Fatal(err)
	}
	c.run(tb, c.program("pg_basebackup"), "-h", primary.dir, "-p", primary.socketPort(), "-U", Superuser,
		"-D", "data", "-R", "-X", "stream", "-c", "fast", "--no-sync")
	c.settle(tb)
	c.Start(tb)
}

// Follow makes a standby of primary out of c, which was stopped before primary was
// promoted, so that primary has all that c had.
func (c *Cluster) Follow(tb testing.TB, primary *Cluster) {
	tb.Helper()
	c.write(tb, "data/standby.signal", "")
	c.append(tb, "primary_conninfo", fmt.Sprintf("host=%s port=%s user=%s", primary.dir, primary.socketPort(), Superuser))
	c.append(tb, "synchronous_standby_names", "")
	c.Start(tb)
}

// Promote makes a primary of a standby, and returns when it takes writes.
func (c *Cluster) Promote(tb testing.TB) {
	tb.Helper()
	c.run(tb, c.program("pg_ctl"), "-D", "data", "-s", "-w", "-t", "60", "promote")
}

// WaitForStandby has commits wait for a standby from now on, and returns when there is
// one that they wait for.
func (c *Cluster) WaitForStandby(tb testing.TB) {
	tb.Helper()
	conn := Connect(tb, c.URL(Superuser, "postgres"))
	defer conn.Close(context.Background())
	for _, sql := range []string{"ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"} {
		if _, err := conn.Exec(context.Background(), sql); err != nil {
			tb.Fatal(err)
		}
	}
	Eventually(tb, "the standby is synchronous", func() bool {
		var n int
		err := conn.QueryRow(context.Background(), "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'").Scan(&n)
		return err == nil && n == 1
	})
}

// Freeze stops every process of the server where it is. To its clients that is a
// machine that is gone without a word: nothing is answered, and nothing is refused. It
// goes on with Thaw, or at the end of the test.
func (c *Cluster) Freeze(tb testing.TB) {
	tb.Helper()
	c.signal(tb, syscall.SIGSTOP)
	tb.Cleanup(func() {
		if _, err := os.Stat(filepath.Join(c.dir, pidFile)); err == nil {
			c.Thaw(tb)
		}
	})
}

// Thaw has a frozen server go on.
func (c *Cluster) Thaw(tb testing.TB) {
	tb.Helper()
	c.signal(tb, syscall.SIGCONT)
}

// signal sends a signal to every process of the server. One may end by itself before.
func (c *Cluster) signal(tb testing.TB, s syscall.Signal) {
	tb.Helper()
	pid := c.postmaster(tb)
	if err := syscall.Kill(pid, s); err != nil {
		tb.Fatal(err)
	}
	for _, child := range childrenOf(pid) {
		_ = syscall.Kill(child, s)
	}
}

// settle gives a copy of another server's data the socket and the port of c.
func (c *Cluster) settle(tb testing.TB) {
	tb.Helper()
	c.append(tb, "unix_socket_directories", c.dir)
	c.append(tb, "synchronous_standby_names", "")
	if c.port != 0 {
		c.append(tb, "port", strconv.Itoa(c.port))
	}
}

// append adds a setting, which stands before earlier ones of that name.
func (c *Cluster) append(tb testing.TB, name, value string) {
	tb.Helper()
	path := filepath.Join(c.dir, "data/postgresql.auto.conf")
	text, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	c.write(tb, "data/postgresql.auto.conf", fmt.Sprintf("%s\n%s = %s\n", text, name, quoted(value)))
}

// socketPort is the port in the name of the socket.
func (c *Cluster) socketPort() string {
	if c.port == 0 {
		return "5432"
	}
	return strconv.Itoa(c.port)
}
