// Package tmptest gives tests directories for databases that are fast to sync. What a
// database is asked to make durable it syncs; on a shared disk a suite spends most of its
// time waiting for that, though no test takes the power away. So in the short form of the
// tests the files are in memory, where there is such a file system, and the long form,
// with LOCKWOOD_TEST_LONG=1, keeps them on disk.
package tmptest

import (
	"os"
	"syscall"
	"testing"
)

const (
	// memory is where Linux has a file system in memory that everyone may write to.
	memory = "/dev/shm"
	// room is how much has to be free there, in bytes: containers may have little.
	room = 4 << 30
	// tmpfs is its type, as statfs(2) tells it.
	tmpfs = 0x01021994
)

// Long reports whether the tests are to take their long form.
func Long() bool { return os.Getenv("LOCKWOOD_TEST_LONG") != "" }

// Root is the directory to make temporary directories in: one in memory for the short
// form of a test, and else that of os.TempDir. A file there may not be executable.
func Root() string {
	if !testing.Testing() || Long() {
		return os.TempDir()
	}
	var s syscall.Statfs_t
	if err := syscall.Statfs(memory, &s); err != nil || s.Type != tmpfs || s.Bavail*uint64(s.Bsize) < room {
		return os.TempDir()
	}
	return memory
}

// Dir returns a new directory in Root, which goes with the test.
func Dir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp(Root(), "lockwood") //nolint:usetesting // that is what it is for
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
