package plugins

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Info is what can be said of a plugin without a key.
type Info struct {
	// Scheme is the scheme of its key URIs.
	Scheme string
	// File is the path of the program.
	File string
	// Found says that the program exists, Pinned that the lock file names it, and
	// Trusted that it is the file that was pinned, so that it may run.
	Found, Pinned, Trusted bool
	// SHA256 is the checksum of the program as it is, in hexadecimal; "" if it
	// could not be read.
	SHA256 string
	// Env names the variables that the lock file lets it see, and Write are the files
	// and directories that it lets it change.
	Env, Write []string
	// Protocol is the version of the protocol that it and this Lockwood settled
	// on, and Version its own; 0 and "" unless it is trusted and answered.
	Protocol int
	Version  string
	// Problem says what is wrong and what to do; nil if nothing is.
	Problem error
}

// List describes the programs lockwood-* in the plugin directory and those that
// the lock file pins, by scheme. It starts the trusted ones, without a key, and
// ends them again.
func (h *Host) List(ctx context.Context) ([]Info, error) {
	schemes, err := h.opts.schemes()
	if err != nil {
		return nil, err
	}
	list := make([]Info, 0, len(schemes))
	for _, scheme := range schemes {
		list = append(list, h.describe(ctx, scheme))
	}
	return list, nil
}

// schemes returns those of all plugins that are there or pinned.
func (o *HostOptions) schemes() ([]string, error) {
	if o.Dir == "" || o.LockFile == "" {
		_, err := o.lookUp("") // says what to set
		return nil, err
	}
	all := make(map[string]bool)
	entries, err := os.ReadDir(o.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading plugin directory: %w", err)
	}
	for _, e := range entries {
		if scheme, ok := strings.CutPrefix(e.Name(), FilePrefix); ok && !e.IsDir() {
			all[scheme] = true
		}
	}
	l, err := readLock(o.LockFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if l != nil {
		for scheme := range l.Plugins {
			all[scheme] = true
		}
	}
	return slices.Sorted(maps.Keys(all)), nil
}

func (h *Host) describe(ctx context.Context, scheme string) Info {
	i := Info{Scheme: scheme, File: filepath.Join(h.opts.Dir, FilePrefix+scheme)}
	_, err := os.Lstat(i.File)
	i.Found = err == nil
	i.SHA256, _ = checksum(i.File) // why it could not be read is the problem below
	if p, err := h.opts.lookUp(scheme); err == nil {
		i.Pinned, i.Env, i.Write = true, p.Env, p.Write
	}
	if i.Problem = h.opts.checkPinned(scheme); i.Problem != nil {
		return i
	}
	i.Trusted = true
	proc, err := h.start(ctx, h.keyless(scheme))
	if err != nil {
		i.Problem = err
		return i
	}
	defer proc.stop(true)
	i.Protocol, i.Version = proc.version, proc.about.version
	return i
}
