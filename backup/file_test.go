package backup

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// die makes the test binary write a backup, b.db, and end in the middle, as by kill -9.
const die = "LOCKWOOD_TEST_DIE"

func TestMain(m *testing.M) {
	if os.Getenv(die) != "" {
		_ = Write(context.Background(), "b.db", func(_ context.Context, partial string) error {
			if err := os.WriteFile(partial, []byte("half"), 0o600); err != nil {
				return err
			}
			self, err := os.FindProcess(os.Getpid())
			if err != nil {
				return err
			}
			return self.Kill()
		})
	}
	os.Exit(m.Run())
}

func fillWith(text string) func(context.Context, string) error {
	return func(_ context.Context, partial string) error { return os.WriteFile(partial, []byte(text), 0o600) }
}

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func holds(t *testing.T, path, want string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil || string(text) != want {
		t.Errorf("%s holds %q, %v; want %q", path, text, err, want)
	}
}

// A backup is there as a whole, for its owner alone.
func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.db")
	if err := Write(t.Context(), path, fillWith("whole")); err != nil {
		t.Fatal(err)
	}
	holds(t, path, "whole")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if list := names(t, filepath.Dir(path)); len(list) != 1 {
		t.Errorf("there are %v", list)
	}
}

// What is there stays: a file, a link that leads nowhere, and what is made meanwhile.
func TestWriteOverwritesNothing(t *testing.T) {
	dir := t.TempDir()
	file, link, late := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "late")
	if err := errors.Join(os.WriteFile(file, []byte("mine"), 0o600), os.Symlink("nowhere", link)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link} {
		filled := false
		err := Write(t.Context(), path, func(context.Context, string) error { filled = true; return nil })
		if !errors.Is(err, fs.ErrExist) || filled {
			t.Errorf("%s: %v", path, err)
		}
	}
	err := Write(t.Context(), late, func(context.Context, string) error { return os.WriteFile(late, []byte("mine"), 0o600) })
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("made meanwhile: %v", err)
	}
	holds(t, file, "mine")
	holds(t, late, "mine")
	if list := names(t, dir); len(list) != 3 {
		t.Errorf("there are %v", list)
	}
}

// Of many that write to one path, one does.
func TestWriteByMany(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.db")
	errs := make([]error, 8)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() { errs[i] = Write(t.Context(), path, fillWith("whole")) })
	}
	all.Wait()
	wrote := 0
	for _, err := range errs {
		if err == nil {
			wrote++
		} else if !errors.Is(err, fs.ErrExist) {
			t.Error(err)
		}
	}
	if holds(t, path, "whole"); wrote != 1 {
		t.Errorf("%d wrote it", wrote)
	}
}

// What fails, or is killed, leaves nothing at the path.
func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	path, broken := filepath.Join(dir, "b.db"), errors.New("broken")
	if err := Write(t.Context(), path, func(context.Context, string) error { return broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
	if list := names(t, dir); len(list) != 0 {
		t.Errorf("there are %v", list)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Dir, cmd.Env = dir, append(os.Environ(), die+"=1")
	if err := cmd.Run(); err == nil {
		t.Error("it was not killed")
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is something: %v", err)
	}
	if err := Write(t.Context(), path, fillWith("whole")); err != nil {
		t.Error(err)
	}
	holds(t, path, "whole")
}

// A backup whose name might not last is none.
func TestWriteWhereTheDirectoryCannotBeSynced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "b.db")
	if err := write(t.Context(), path, fillWith("whole"), func(string) error { return fs.ErrPermission }); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("it returns %v", err)
	}
	if list := names(t, dir); len(list) != 0 {
		t.Errorf("there are %v", list)
	}
}
