package rotation_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/sqlite"
)

// sqliteCrash is a database file. What takes the step is another process, so that
// it can be killed. The driver tells neither of a COMMIT nor of a statement in a
// script: killed there, a process leaves what it leaves at their neighbours.
type sqliteCrash struct{ path string }

func (c *sqliteCrash) open(t *testing.T) store.Store { return c.traced(t, nil) }

func (c *sqliteCrash) traced(t *testing.T, trace func(sql string, done bool)) store.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: c.path, Trace: trace})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// crashJob names what the other process is to do; it is that process when it is
// set.
const crashJob = "LOCKWOOD_TEST_CRASH_JOB"

func (c *sqliteCrash) crash(t *testing.T, kind string, n int, after bool) (where string, reached bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRunUntilKilled$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %t %s", crashJob, kind, n, after, c.path))
	out, err := cmd.CombinedOutput()
	if err == nil {
		return "", false
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("the step ended with %v, and was not killed: %s", err, out)
	}
	return strings.TrimSpace(string(out)), true
}

// TestRunUntilKilled is no test: it is what the other process of a sqliteCrash
// runs, which kills itself at a statement.
func TestRunUntilKilled(t *testing.T) {
	var name, path string
	var at int
	var after bool
	if n, _ := fmt.Sscanf(os.Getenv(crashJob), "%s %d %t %s", &name, &at, &after, &path); n != 4 {
		return
	}
	var seen atomic.Int64
	var armed atomic.Bool
	c, kind := &sqliteCrash{path}, crashKinds()[name]
	i := kind.as.start(t, c.traced(t, func(sql string, done bool) {
		if armed.Load() && done == after && ours(sql) && seen.Add(1) == int64(at) {
			fmt.Fprintln(os.Stderr, abridged(sql))
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}))
	armed.Store(true)
	if err := kind.run(t.Context(), i); err != nil {
		t.Fatal(err)
	}
}
