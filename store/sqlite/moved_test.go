package sqlite_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/sqlite"
)

// What is written to a file that the path does not name any more would be gone with the
// process: it is refused, and nothing is written anywhere.
func TestAMovedFileTakesNoWrites(t *testing.T) {
	for name, move := range map[string]func(t *testing.T, path string){
		"removed":     func(t *testing.T, path string) { remove(t, path, path+"-wal", path+"-shm") },
		"log removed": func(t *testing.T, path string) { remove(t, path+"-wal") },
		"index removed": func(t *testing.T, path string) {
			remove(t, path+"-shm")
		},
		"moved": func(t *testing.T, path string) {
			if err := os.Rename(path, path+".old"); err != nil {
				t.Error(err)
			}
		},
		"replaced": func(t *testing.T, path string) {
			backup := read(t, path)
			remove(t, path, path+"-wal", path+"-shm")
			if err := os.WriteFile(path, backup, 0o600); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "lockwood.db")
			s := openMigrated(t, sqlite.Config{Path: path})
			key := newKey(t, s)
			deposit(t, s, key)
			move(t, path)
			err := s.Upsert(t.Context(), row(key), key, 0)
			if !errors.Is(err, core.ErrStoreUnavailable) || errors.Is(err, core.ErrOutcomeUnknown) || store.CauseOf(err) != store.Moved {
				t.Errorf("a deposit: %v", err)
			}
			if _, err := s.Delete(t.Context(), 1, ""); store.CauseOf(err) != store.Moved {
				t.Errorf("a deletion: %v", err)
			}
			if err := s.Ping(t.Context()); store.CauseOf(err) != store.Moved {
				t.Errorf("a ping: %v", err)
			}
			if c, err := s.Counts(t.Context()); err == nil && c.Credentials > 1 {
				t.Errorf("there are %d credentials", c.Credentials)
			}
		})
	}
}

// Closing a store whose file was replaced leaves the new file alone.
func TestClosingLeavesTheNewFileAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "lockwood.db")
	s := openMigrated(t, sqlite.Config{Path: path})
	deposit(t, s, newKey(t, s))
	remove(t, path, path+"-wal", path+"-shm")
	other := openMigrated(t, sqlite.Config{Path: path})
	deposit(t, other, newKey(t, other))
	s.Close()
	if files := filesOf(t, dir); !slices.Equal(files, []string{"lockwood.db", "lockwood.db-shm", "lockwood.db-wal"}) {
		t.Errorf("the files are %q", files)
	}
	other.Close()
	if c, err := openStore(t, sqlite.Config{Path: path}).Counts(t.Context()); err != nil || c.Credentials != 1 {
		t.Errorf("the new file has %+v, %v", c, err)
	}
}

func remove(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// A file system with less room than a database may need is found.
func TestLittleRoom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lockwood.db")
	s := openMigrated(t, sqlite.Config{Path: path})
	if found, err := s.Examine(t.Context()); err != nil || len(found) > 0 {
		t.Fatalf("a small file: %v, %v", found, err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, int64(fs.Bavail)*fs.Bsize); err != nil { // which takes no room
		t.Fatal(err)
	}
	found, err := s.Examine(t.Context())
	if err != nil || len(found) != 1 || found[0].Condition != store.LittleRoom || found[0].Object != path || found[0].Detail == "" {
		t.Errorf("a file as large as what is left: %v, %v", found, err)
	}
}
