package plugins

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	// runtimePrefix begins the name of a host's private directory.
	runtimePrefix = "lockwood-run-"
	// aliveName is the file in it that is locked while its host lives.
	aliveName = "alive"
	// socketRoom is what go-plugin appends to the directory for a socket, and
	// maxSocketPath the limit of unix(7), both in bytes.
	socketRoom    = len("/plugin-dir4294967295/plugin4294967295")
	maxSocketPath = 107
)

// runtimeDir is a host's private directory, for sockets, and for the
// copies of programs that cannot be in memory. It is there while the host is.
type runtimeDir struct {
	path  string
	alive *os.File
}

// makeRuntimeDir makes a directory that only this user can enter, below the first of
// bases where it can be made, and removes those of hosts that were killed.
func makeRuntimeDir(bases []string) (*runtimeDir, error) {
	var errs []error
	for _, base := range bases {
		d, err := makeRuntimeDirIn(base)
		if err == nil {
			return d, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("a private directory for the sockets of plugins cannot be made: %w; set TMPDIR or XDG_RUNTIME_DIR to a directory that this user can write to, such as a tmpfs", errors.Join(errs...))
}

func makeRuntimeDirIn(base string) (*runtimeDir, error) {
	sweep(base)
	path, err := os.MkdirTemp(base, runtimePrefix) // 0700
	if err != nil {
		return nil, err
	}
	if len(path)+socketRoom > maxSocketPath {
		_ = os.Remove(path)
		return nil, fmt.Errorf("the path %s is too long for a unix socket", base)
	}
	// It gets its name when it is locked: nobody may find it before, and take this
	// host for dead.
	unnamed := filepath.Join(path, aliveName+".new")
	alive, err := os.OpenFile(unnamed, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err == nil && !lockFD(alive.Fd()) {
		err = errors.New("the file cannot be locked")
	}
	if err == nil {
		err = os.Rename(unnamed, filepath.Join(path, aliveName))
	}
	if err != nil {
		if alive != nil {
			_ = alive.Close()
		}
		_ = os.RemoveAll(path)
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return &runtimeDir{path: path, alive: alive}, nil
}

// close removes the directory and all that is in it.
func (d *runtimeDir) close() error {
	err := os.RemoveAll(d.path)
	return errors.Join(err, d.alive.Close())
}

// sweep removes directories of hosts of this user that are no more: nobody holds
// the lock. One whose host is just making it has no lock file yet and stays.
func sweep(base string) {
	entries, err := os.ReadDir(base)
	if err != nil {
		return // making one fails next, with a better message
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), runtimePrefix) {
			sweepOne(filepath.Join(base, e.Name()))
		}
	}
}

func sweepOne(dir string) {
	info, err := os.Lstat(dir)
	if err != nil {
		return
	}
	if uid, ok := ownerOf(info); !ok || uid != os.Geteuid() || info.Mode().Perm() != fs.FileMode(0o700) {
		return
	}
	alive, err := os.OpenFile(filepath.Join(dir, aliveName), openNoFollow, 0)
	if err != nil {
		return
	}
	defer alive.Close()
	if lockFD(alive.Fd()) {
		_ = os.RemoveAll(dir)
	}
}
