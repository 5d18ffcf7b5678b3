package pgtest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// initdbArgs make a cluster that trusts everyone. The files of initdb are not worth
// syncing; what the server writes later is.
var initdbArgs = []string{"-A", "trust", "-U", Superuser, "--no-sync", "-E", "UTF8", "--locale=C"}

// initialise gives the cluster its data directory, which is a copy of one that initdb
// made before: a copy takes a tenth of the time. The copies have one system identifier,
// which no test and no statement of Lockwood looks at.
func (c *Cluster) initialise(tb testing.TB) {
	tb.Helper()
	template, err := c.template(tb)
	if err == nil {
		err = copyTree(template, filepath.Join(c.dir, "data"))
	}
	if err != nil {
		tb.Fatalf("making a data directory: %v", err)
	}
}

// template returns the data directory to copy. It is kept in the user's cache directory,
// under a hash of what made it, and is made by whoever comes first, whose turn it is
// while others wait.
func (c *Cluster) template(tb testing.TB) (string, error) {
	tb.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	initdb := c.program("initdb")
	program, err := os.Stat(initdb)
	if err != nil {
		return "", err
	}
	// A cluster of another account's cannot be started.
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %v %q %v", initdb, program.Size(), program.ModTime(), initdbArgs, c.as))
	kept := filepath.Join(cache, "lockwood-test", "initdb-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(kept); err == nil {
		return kept, nil
	}
	if err := os.MkdirAll(filepath.Dir(kept), 0o700); err != nil {
		return "", err
	}
	turn, err := os.OpenFile(kept+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer turn.Close() // which ends the turn
	if err := syscall.Flock(int(turn.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(kept); err == nil {
		return kept, nil
	}
	made := filepath.Join(c.dir, "made")
	c.run(tb, initdb, append([]string{"-D", made}, initdbArgs...)...)
	defer func() { _ = os.RemoveAll(made) }()
	// What a process left that was killed may be half a copy.
	if err := os.RemoveAll(kept + ".new"); err != nil {
		return "", err
	}
	if err := copyTree(made, kept+".new"); err != nil {
		return "", err
	}
	return kept, os.Rename(kept+".new", kept)
}

// copyTree copies a directory with its permissions and its owners.
func copyTree(from, to string) error {
	if text, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, text)
	}
	return nil
}
