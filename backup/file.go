package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Write makes the new file at path, which only its owner can read. fill is given an empty
// file beside it to write and to verify; only then does that file get its name, so that
// there is a whole backup at path, or none, also after a crash or a power cut. A crash may
// leave a file behind whose name begins with a dot and ends with ".partial".
//
// It returns fs.ErrExist, and writes nothing, if there is something at path. After any
// other error there is nothing at path.
func Write(ctx context.Context, path string, fill func(ctx context.Context, partial string) error) error {
	return write(ctx, path, fill, syncDir)
}

// write is Write with what has the names in a directory survive a power cut.
func write(ctx context.Context, path string, fill func(ctx context.Context, partial string) error, syncDir func(dir string) error) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("writing %s: %w", path, fs.ErrExist)
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.partial") // of mode 0600
	if err != nil {
		return fmt.Errorf("making the backup: %w", err)
	}
	partial := f.Name()
	defer func() {
		if e := os.Remove(partial); e != nil && !errors.Is(e, fs.ErrNotExist) && err == nil {
			err = e
		}
	}()
	if err := f.Close(); err != nil {
		return fmt.Errorf("making the backup: %w", err)
	}
	if err := fill(ctx, partial); err != nil {
		return err
	}
	if err := name(partial, path); err != nil {
		return fmt.Errorf("naming the backup: %w", err)
	}
	if err := syncDir(dir); err != nil { // a power cut could take the name
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// name gives the file at partial the name path as well, unless there is something. Where
// a file cannot have two names it is moved, which a file that is made at path in that very
// moment does not survive.
func name(partial, path string) error {
	err := os.Link(partial, path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		return fs.ErrExist
	}
	return os.Rename(partial, path)
}
