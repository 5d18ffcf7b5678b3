package plugins

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// openTrusted opens a regular file that nobody but root and this user could have
// written or exchanged: it and every directory above it are owned by one of them
// and not writable by anyone else. The last part of the path is no symbolic link;
// those above it are followed first, and what they lead to is checked. What is
// checked of the file is checked of the open file.
func openTrusted(path, what string) (*os.File, error) {
	path, err := checkPlace(path)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", what, err)
	}
	f, err := os.OpenFile(path, openNoFollow, 0)
	if errors.Is(err, errLink) {
		return nil, fmt.Errorf("opening %s: %s is a symbolic link; name the file itself", what, path)
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", what, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err == nil {
		err = checkOwner(path, info)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("opening %s: %w", what, err)
	}
	return f, nil
}

// checkPlace checks every directory above path, and returns the path with their
// symbolic links resolved.
func checkPlace(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		info, err := os.Lstat(d)
		if err != nil {
			return "", err
		}
		if err := checkOwner(d, info); err != nil {
			return "", err
		}
		if d == filepath.Dir(d) {
			return filepath.Join(dir, filepath.Base(abs)), nil
		}
	}
}

// checkOwner reports, as an error with its remedy, that somebody else could write
// here. A sticky directory, such as /tmp, lets nobody exchange the entries of
// others, and the entries are checked themselves.
func checkOwner(path string, info fs.FileInfo) error {
	uid, ok := ownerOf(info)
	if !ok {
		return fmt.Errorf("the owner of %s cannot be told on this system", path)
	}
	if uid != 0 && uid != os.Geteuid() {
		return fmt.Errorf("%s is owned by user %d, who could exchange it; run: chown root %s", path, uid, path)
	}
	sticky := info.IsDir() && info.Mode()&fs.ModeSticky != 0
	if info.Mode().Perm()&0o022 != 0 && !sticky {
		return fmt.Errorf("%s is writable by its group or by others (mode %04o); run: chmod go-w %s", path, info.Mode().Perm(), path)
	}
	return nil
}

// checkLockDir checks where a lock file is, or is going to be: outside the plugin
// directory. A build that fills that directory must not be able to vouch for
// itself.
func checkLockDir(o *HostOptions) error {
	lock, err := checkPlace(o.LockFile)
	if err != nil {
		return fmt.Errorf("checking the place of the lock file: %w", err)
	}
	dir, err := filepath.EvalSymlinks(o.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no plugin directory %s; make it, or set FOREST_EXECUTOR_PLUGIN_DIR", o.Dir)
	}
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		return fmt.Errorf("checking the plugin directory: %w", err)
	}
	if within(dir, lock) {
		return fmt.Errorf("the lock file %s is inside the plugin directory %s; whoever may write plugins there could pin them too: move it elsewhere and set FOREST_EXECUTOR_PLUGIN_LOCK", o.LockFile, o.Dir)
	}
	return nil
}

// within reports whether path is dir or below it; both are absolute.
func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}
