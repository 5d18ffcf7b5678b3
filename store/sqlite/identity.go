package sqlite

import (
	"errors"
	"io/fs"
	"os"
	"sync"
)

// errMoved means that the path names other files than those that are open. What was
// written to these would be gone with the process.
var errMoved = errors.New("the database file that is open is not the one at its path any more: it, or its -wal or -shm file, was moved, replaced or removed; " +
	"nothing was written; stop the service, put the right file there, and start it")

// identity knows the files of an open database again. It is safe for concurrent use.
type identity struct {
	path string // empty for a database that has no file
	mu   sync.Mutex
	seen map[string]fs.FileInfo // by path, from when each was first seen
}

// check returns errMoved unless the paths of the database, of its write-ahead log and
// of the log's index name the files that they named at first. It costs three calls of
// stat, some microseconds. A file that cannot be looked at is taken to be there.
func (i *identity) check() error {
	if i.path == "" {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, path := range []string{i.path, i.path + "-wal", i.path + "-shm"} {
		info, err := os.Stat(path)
		seen, known := i.seen[path]
		switch {
		case err == nil && !known:
			i.seen[path] = info
		case errors.Is(err, fs.ErrNotExist) && known, err == nil && !os.SameFile(info, seen):
			return errMoved
		}
	}
	return nil
}

// unmoved is a hook of each commit, which it turns into a rollback if the files are
// others.
func (i *identity) unmoved() bool { return i.check() == nil }
