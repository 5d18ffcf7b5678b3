package plugins

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/lockwood-kms/lockwood/core"
)

// launch is what it takes to start a process of a plugin, again and again.
type launch struct {
	scheme string
	uri    string // as written; "" leaves the process without a key
	name   string // of the plugin's file
	// named are the paths in uri: its own files, even if they are hidden.
	named []string
	// load returns the program, copied to or below a private directory if it has to
	// be on disk, and what it may see and change. It is called for each start, so that
	// a plugin that was updated and pinned anew is taken up, and one that was changed
	// is not.
	load func(dir string) (*executable, permissions, error)
	log  *logBudget
}

// permissions are what a plugin's process may see and change.
type permissions struct {
	env      []string // names of variables
	writable []string // files and directories
}

// pinned is a launch of the plugin that the lock file pins for uri's scheme.
func (h *Host) pinned(uri core.KeyURI) launch {
	l := newLaunch(uri, FilePrefix+uri.Scheme)
	l.load = func(dir string) (*executable, permissions, error) {
		file, may, err := h.opts.loadPinned(uri.Scheme, dir)
		if meant, ok := core.MeantKeyURI(uri.String()); ok && err != nil && h.opts.isAbsent(uri.Scheme) {
			err = fmt.Errorf("%w\nwrite %s", err, meant)
		}
		return file, may, err
	}
	return l
}

// named is a launch of a file that is not pinned.
func (h *Host) named(path string, uri core.KeyURI, allowed permissions) launch {
	l := newLaunch(uri, filepath.Base(path))
	l.load = func(dir string) (*executable, permissions, error) {
		exe, err := load(path, dir)
		return exe, allowed, err
	}
	return l
}

// keyless is a launch of a pinned plugin that is given no key.
func (h *Host) keyless(scheme string) launch {
	l := h.pinned(core.KeyURI{Scheme: scheme})
	l.uri = ""
	return l
}

func newLaunch(uri core.KeyURI, name string) launch {
	l := launch{scheme: uri.Scheme, uri: uri.String(), name: name, log: newLogBudget()}
	for _, value := range uri.Options {
		l.named = append(l.named, value) // what is no path names no file
	}
	return l
}

// trusted looks up a plugin's pin and checks what the pin is worth.
func (o *HostOptions) trusted(scheme string) (pin, error) {
	p, err := o.lookUp(scheme)
	if err != nil {
		return pin{}, err
	}
	if err := checkLockDir(o); err != nil {
		return pin{}, err
	}
	if err := p.checkWritable(o); err != nil {
		return pin{}, err
	}
	return p, nil
}

// loadPinned loads a plugin and compares it with its pin.
func (o *HostOptions) loadPinned(scheme, dir string) (*executable, permissions, error) {
	p, err := o.trusted(scheme)
	if err != nil {
		return nil, permissions{}, err
	}
	exe, err := load(filepath.Join(o.Dir, p.File), dir)
	if err != nil {
		return nil, permissions{}, o.absent(err, p)
	}
	if err := p.compare(exe.sum); err != nil {
		exe.close()
		return nil, permissions{}, err
	}
	return exe, permissions{env: p.Env, writable: p.Write}, nil
}

// checkPinned compares a plugin with its pin.
func (o *HostOptions) checkPinned(scheme string) error {
	p, err := o.trusted(scheme)
	if err != nil {
		return err
	}
	sum, err := checksum(filepath.Join(o.Dir, p.File))
	if err != nil {
		return o.absent(err, p)
	}
	return p.compare(sum)
}

// absent says what to do if err is that there is no such plugin.
func (o *HostOptions) absent(err error, p pin) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fmt.Errorf("there is no plugin for %s:// keys: %s does not exist; install it, or correct FOREST_EXECUTOR_PLUGIN_DIR", p.scheme(), filepath.Join(o.Dir, p.File))
}
