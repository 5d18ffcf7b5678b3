package pgtest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/lockwood-kms/lockwood/internal/tmptest"
)

// RequireEnv is the variable that turns a skip for want of a server into a
// failure.
const RequireEnv = "LOCKWOOD_TEST_REQUIRE_SERVERS"

// account is the user that PostgreSQL runs as where the test runs as root, which
// the server refuses.
const account = "postgres"

// programs finds the directory with PostgreSQL's programs: the newest of
// Debian's, or else the one in PATH.
func programs(tb testing.TB) string {
	tb.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	slices.SortFunc(found, func(a, b string) int { return majorVersion(b) - majorVersion(a) })
	if len(found) > 0 {
		return filepath.Dir(found[0])
	}
	initdb, err := exec.LookPath("initdb")
	if err != nil {
		missing(tb, "PostgreSQL", "postgresql")
	}
	return filepath.Dir(initdb)
}

func majorVersion(initdb string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(initdb))))
	return n
}

// missing skips or fails the test.
func missing(tb testing.TB, server, debianPackage string) {
	tb.Helper()
	text := fmt.Sprintf("%s is not installed (Debian: apt-get install %s)", server, debianPackage)
	if os.Getenv(RequireEnv) == "1" {
		tb.Fatalf("%s, and %s=1 requires it", text, RequireEnv)
	}
	tb.Skip(text)
}

// identity is whom servers run as; nil is whoever runs the test.
func identity(tb testing.TB) *syscall.Credential {
	tb.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup(account)
	if err != nil {
		missing(tb, "the user "+account, "postgresql")
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// home is a server's temporary directory and the identity that owns it.
type home struct {
	dir string
	as  *syscall.Credential
}

// reaper waits for the end of its input, which is the end of the test process
// however it ends, then ends the server named by the pid file and removes the
// directory, also one that was frozen. A server that has ended may stay a zombie for want of a parent.
const reaper = `
cat >/dev/null
if [ -s "$2" ]; then
	pid=$(head -n 1 "$2")
	kill -QUIT "$pid" && kill -CONT "$pid" && while kill -0 "$pid" && ! grep -q ') Z ' "/proc/$pid/stat"; do sleep 0.05; done
fi
rm -rf -- "$1"
`

// newHome makes a directory and starts its reaper. Calling the second result
// ends both before the test process does.
func newHome(tb testing.TB, pidFile string) (home, func()) {
	tb.Helper()
	// Not tb.TempDir: its path may be too long for a Unix socket, and its parents
	// closed to the account.
	dir, err := os.MkdirTemp(tmptest.Root(), "pgtest") //nolint:usetesting // see above
	if err != nil {
		tb.Fatal(err)
	}
	h := home{dir: dir, as: identity(tb)}
	if h.as != nil {
		if err := os.Chown(dir, int(h.as.Uid), int(h.as.Gid)); err != nil {
			tb.Fatal(err)
		}
	}
	reap := h.command("/bin/sh", "-c", reaper, "reaper", dir, filepath.Join(dir, pidFile))
	input, err := reap.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := reap.Start(); err != nil {
		tb.Fatal(err)
	}
	return h, func() {
		_ = input.Close()
		_ = reap.Wait()
	}
}

// command prepares a program that runs as the identity, in a process group of
// its own so that an interrupt at the terminal does not reach it.
func (h home) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = h.dir
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: h.as}
	return cmd
}

// run runs a program to its end and fails the test if it fails.
func (h home) run(tb testing.TB, program string, args ...string) {
	tb.Helper()
	// Output goes to a file: a pipe would be held open by the server that pg_ctl
	// leaves behind.
	out, err := os.CreateTemp(h.dir, "out")
	if err != nil {
		tb.Fatal(err)
	}
	defer out.Close()
	cmd := h.command(program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(out.Name())
		logs, _ := os.ReadFile(filepath.Join(h.dir, logFile))
		tb.Fatalf("running %s: %v\n%s%s", filepath.Base(program), err, text, logs)
	}
}

// logFile is where a server logs, in its directory.
const logFile = "log"

// write writes a file for a server to read.
func (h home) write(tb testing.TB, name, text string) string {
	tb.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	if h.as != nil {
		if err := os.Chown(path, int(h.as.Uid), int(h.as.Gid)); err != nil {
			tb.Fatal(err)
		}
	}
	return path
}

// freePort returns a TCP port of the loopback interface that nothing listens on.
func freePort(tb testing.TB) int {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
