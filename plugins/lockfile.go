package plugins

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/lockwood-kms/lockwood/core"
)

// lockVersion is the version of the lock file's format.
const lockVersion = 1

// maxLockSize bounds a lock file, in bytes.
const maxLockSize = 1 << 20

// lockFile is what the lock file holds; docs/plugins.md documents the format.
type lockFile struct {
	Version int            `json:"version"`
	Plugins map[string]pin `json:"plugins"` // by scheme
}

// pin is what a lock file says of one plugin.
type pin struct {
	// File is the name of the program in the plugin directory.
	File string `json:"file"`
	// SHA256 is the checksum of its bytes, in lower-case hexadecimal.
	SHA256 string `json:"sha256"`
	// Env names the variables of the host's environment that it may see.
	Env []string `json:"env"`
}

// readLock reads and checks a lock file. Every error is a configuration error.
func readLock(path string) (*lockFile, error) {
	f, err := openTrusted(path, "lock file")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxLockSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading lock file: %w", err)
	}
	if len(b) > maxLockSize {
		return nil, fmt.Errorf("lock file %s is larger than %d bytes", path, maxLockSize)
	}
	l, err := parseLock(b)
	if err != nil {
		return nil, fmt.Errorf("lock file %s: %w; mend it, or remove it and pin anew with: lockwood plugin pin", path, err)
	}
	return l, nil
}

// parseLock parses a lock file. Unknown and repeated members are refused: what is
// not understood here may have been meant to restrict.
func parseLock(b []byte) (*lockFile, error) {
	var l lockFile
	if err := json.UnmarshalRead(bytes.NewReader(b), &l, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("parsing: %w", err)
	}
	if l.Version != lockVersion {
		return nil, fmt.Errorf("its version is %d; this Lockwood reads version %d", l.Version, lockVersion)
	}
	for scheme, p := range l.Plugins {
		if err := p.check(scheme); err != nil {
			return nil, err
		}
	}
	return &l, nil
}

func (p pin) check(scheme string) error {
	if _, err := core.ParseKeyURI(scheme + "://"); err != nil {
		return fmt.Errorf("%q is not the scheme of a key URI; a plugin's file is named %sSCHEME", cut(scheme, 64), FilePrefix)
	}
	if p.File != FilePrefix+scheme || filepath.Base(p.File) != p.File {
		return fmt.Errorf("the file of plugin %q is %q; it must be %q", scheme, p.File, FilePrefix+scheme)
	}
	if b, err := hex.DecodeString(p.SHA256); err != nil || len(b) != sha256.Size || p.SHA256 != strings.ToLower(p.SHA256) {
		return fmt.Errorf("the sha256 of plugin %q is not %d lower-case hexadecimal digits", scheme, 2*sha256.Size)
	}
	if err := checkNames(p.Env); err != nil {
		return fmt.Errorf("the env of plugin %q: %w", scheme, err)
	}
	return nil
}

// lookUp returns the pin of a scheme.
func (o *HostOptions) lookUp(scheme string) (pin, error) {
	if o.Dir == "" || o.LockFile == "" {
		return pin{}, errors.New("plugins are not set up: set FOREST_EXECUTOR_PLUGIN_DIR to the directory of the plugins and FOREST_EXECUTOR_PLUGIN_LOCK to a lock file outside of it")
	}
	l, err := readLock(o.LockFile)
	if (err == nil && l.Plugins[scheme].File == "" || errors.Is(err, fs.ErrNotExist)) && o.absent(scheme) {
		return pin{}, o.noPlugin(scheme)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return pin{}, fmt.Errorf("there is no lock file at %s, so no plugin is trusted; make one with: lockwood plugin pin %s", o.LockFile, FilePrefix+scheme)
	}
	if err != nil {
		return pin{}, err
	}
	p, ok := l.Plugins[scheme]
	if !ok {
		return pin{}, fmt.Errorf("plugin %s is not pinned in %s; if you trust the file, run: lockwood plugin pin %s", FilePrefix+scheme, o.LockFile, FilePrefix+scheme)
	}
	return p, nil
}

// absent reports whether there is no program for a scheme.
func (o *HostOptions) absent(scheme string) bool {
	_, err := os.Lstat(filepath.Join(o.Dir, FilePrefix+scheme))
	return errors.Is(err, fs.ErrNotExist)
}

// noPlugin is the error of a scheme that nothing serves.
func (o *HostOptions) noPlugin(scheme string) error {
	there, err := o.schemes()
	if err != nil || len(there) == 0 {
		there = []string{"none"}
	}
	return fmt.Errorf("there is no plugin for %s:// keys: %s is not in %s; there are: %s", scheme, FilePrefix+scheme, o.Dir, strings.Join(there, ", "))
}

// writeLock replaces a lock file in one step: a crash leaves the old one or the
// new one. Anyone may read it, for it holds no secret, and whoever pins is often
// not the user that the service runs as; only its owner may write it.
func writeLock(path string, l *lockFile) error {
	b, err := json.Marshal(l, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return fmt.Errorf("encoding lock file: %w", err)
	}
	next, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".") // 0600
	if err != nil {
		return fmt.Errorf("writing lock file: %w", err)
	}
	defer func() { _ = os.Remove(next.Name()) }() // fails once it is renamed
	_, err = next.Write(append(b, '\n'))
	err = errors.Join(err, next.Chmod(0o644), next.Sync(), next.Close())
	if err == nil {
		err = os.Rename(next.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("writing lock file: %w", err)
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Pinned is what the lock file now says of a plugin.
type Pinned struct {
	Scheme string
	// SHA256 is the checksum, in hexadecimal; Was the one before, "" if new.
	SHA256, Was string
	// Env names the variables that the plugin may see.
	Env []string
}

// Pin writes the checksum of a plugin into the lock file, making the file if there
// is none. binary is the plugin's path, or its name or scheme in the plugin
// directory, where it must stand. env names the variables of the environment that
// it may see; nil keeps what the lock file says, or takes DefaultEnv.
//
// It is for an operator's command: what it pins is what will be trusted.
func (h *Host) Pin(binary string, env []string) (Pinned, error) {
	o := &h.opts
	if o.Dir == "" || o.LockFile == "" {
		_, err := o.lookUp("") // says what to set
		return Pinned{}, err
	}
	scheme, err := o.schemeOf(binary)
	if err != nil {
		return Pinned{}, err
	}
	image, err := readImage(filepath.Join(o.Dir, FilePrefix+scheme))
	if err != nil {
		return Pinned{}, err
	}
	l, err := readLock(o.LockFile)
	if errors.Is(err, fs.ErrNotExist) {
		l, err = &lockFile{Version: lockVersion}, checkLockDir(o)
	}
	if err != nil {
		return Pinned{}, err
	}
	was, known := l.Plugins[scheme]
	next := pin{File: FilePrefix + scheme, SHA256: image.sum, Env: env}
	switch {
	case env != nil:
	case known:
		next.Env = was.Env
	default:
		next.Env = DefaultEnv(scheme)
	}
	slices.Sort(next.Env)
	next.Env = slices.Compact(next.Env)
	if err := next.check(scheme); err != nil {
		return Pinned{}, err
	}
	if l.Plugins == nil {
		l.Plugins = make(map[string]pin)
	}
	l.Plugins[scheme] = next
	return Pinned{Scheme: scheme, SHA256: next.SHA256, Was: was.SHA256, Env: next.Env}, writeLock(o.LockFile, l)
}

// schemeOf returns the scheme of a plugin by path, file name or scheme.
func (o *HostOptions) schemeOf(binary string) (string, error) {
	base := filepath.Base(binary)
	if base != binary {
		dir, err := filepath.EvalSymlinks(filepath.Dir(binary))
		if err != nil {
			return "", fmt.Errorf("finding plugin: %w", err)
		}
		want, err := filepath.EvalSymlinks(o.Dir)
		if err != nil {
			return "", fmt.Errorf("finding plugin directory: %w", err)
		}
		if abs, err := filepath.Abs(dir); err != nil || abs != want {
			return "", fmt.Errorf("%s is not in the plugin directory %s; copy it there and pin it there", binary, o.Dir)
		}
	}
	return strings.TrimPrefix(base, FilePrefix), nil
}
