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
	// Write are the files and directories that it may change.
	Write []string `json:"write,omitempty"`
}

// maxWrite bounds the paths that one plugin may change.
const maxWrite = 64

func (p pin) scheme() string { return strings.TrimPrefix(p.File, FilePrefix) }

// compare reports, as an error, that a plugin is not the one that was pinned.
func (p pin) compare(sum string) error {
	if sum == p.SHA256 {
		return nil
	}
	return fmt.Errorf("plugin %s is not the file that was pinned: its SHA-256 is %s, the lock file says %s; if you trust the new file, run: lockwood plugin pin %s", p.File, sum, p.SHA256, p.File)
}

// checkWrite reports, as an error, a path that is not one to write to.
func checkWrite(paths []string) error {
	if len(paths) > maxWrite {
		return fmt.Errorf("%d paths; at most %d are allowed", len(paths), maxWrite)
	}
	for _, path := range paths {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == filepath.Dir(path) {
			return fmt.Errorf("%q is not the absolute path of a file or directory, without . and .. and a slash at its end", cut(path, 256))
		}
	}
	return nil
}

// checkWritable reports, as an error, that the plugin may change what decides which
// plugins run.
func (p pin) checkWritable(o *HostOptions) error {
	for _, path := range p.Write {
		if within(path, o.LockFile) || within(path, o.Dir) || within(o.Dir, path) {
			return fmt.Errorf("the plugin %s may write to %s, and so to what decides which plugins run; take it out of \"write\" in %s", p.File, path, o.LockFile)
		}
	}
	return nil
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
	if err := checkWrite(p.Write); err != nil {
		return fmt.Errorf("the write of plugin %q: %w", scheme, err)
	}
	return nil
}

// lookUp returns the pin of a scheme.
func (o *HostOptions) lookUp(scheme string) (pin, error) {
	if o.Dir == "" || o.LockFile == "" {
		return pin{}, errors.New("plugins are not set up: set FOREST_EXECUTOR_PLUGIN_DIR to the directory of the plugins and FOREST_EXECUTOR_PLUGIN_LOCK to a lock file outside of it")
	}
	l, err := readLock(o.LockFile)
	if (err == nil && l.Plugins[scheme].File == "" || errors.Is(err, fs.ErrNotExist)) && o.isAbsent(scheme) {
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

// isAbsent reports whether there is no program for a scheme.
func (o *HostOptions) isAbsent(scheme string) bool {
	_, err := os.Lstat(filepath.Join(o.Dir, FilePrefix+scheme))
	return errors.Is(err, fs.ErrNotExist)
}

// noPlugin is the error of a scheme that nothing serves.
func (o *HostOptions) noPlugin(scheme string) error {
	there, err := o.schemes()
	if err != nil || len(there) == 0 {
		there = []string{"none"}
	}
	return fmt.Errorf("there is no plugin for %s:// keys: %s is not in %s; there are: %s. Install it there, and run: lockwood plugin pin %s", scheme, FilePrefix+scheme, o.Dir, strings.Join(there, ", "), FilePrefix+scheme)
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

// PinOptions are what a plugin may see and change. Nil fields keep what the lock
// file says.
type PinOptions struct {
	// Env names variables of the environment; for a new plugin nil is DefaultEnv.
	Env []string
	// Write are absolute paths of files and directories; for a new plugin nil is
	// none.
	Write []string
}

// Pinned is what the lock file now says of a plugin.
type Pinned struct {
	Scheme string
	// SHA256 is the checksum, in hexadecimal; Was the one before, "" if new.
	SHA256, Was string
	// Env names the variables that the plugin may see, and Write are the files and
	// directories that it may change.
	Env, Write []string
}

// Pin writes the checksum of a plugin into the lock file, making the file if there
// is none. binary is the plugin's path, or its name or scheme in the plugin
// directory, where it must stand. nil options work.
//
// It is for an operator's command: what it pins is what will be trusted.
func (h *Host) Pin(binary string, opts *PinOptions) (Pinned, error) {
	o := &h.opts
	if o.Dir == "" || o.LockFile == "" {
		_, err := o.lookUp("") // says what to set
		return Pinned{}, err
	}
	scheme, err := o.schemeOf(binary)
	if err != nil {
		return Pinned{}, err
	}
	sum, err := checksum(filepath.Join(o.Dir, FilePrefix+scheme))
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
	if !known {
		was.Env = DefaultEnv(scheme)
	}
	next := was.again(scheme, sum, opts)
	if err := errors.Join(next.check(scheme), next.checkWritable(o)); err != nil {
		return Pinned{}, err
	}
	if l.Plugins == nil {
		l.Plugins = make(map[string]pin)
	}
	l.Plugins[scheme] = next
	return Pinned{Scheme: scheme, SHA256: sum, Was: was.SHA256, Env: next.Env, Write: next.Write}, writeLock(o.LockFile, l)
}

// again is the pin of a plugin that was pinned as p, or not at all.
func (p pin) again(scheme, sum string, opts *PinOptions) pin {
	if opts == nil {
		opts = &PinOptions{}
	}
	next := pin{File: FilePrefix + scheme, SHA256: sum, Env: p.Env, Write: p.Write}
	if opts.Env != nil {
		next.Env = opts.Env
	}
	if opts.Write != nil {
		next.Write = opts.Write
	}
	next.Env = slices.Compact(slices.Sorted(slices.Values(next.Env)))
	next.Write = slices.Compact(slices.Sorted(slices.Values(next.Write)))
	return next
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
