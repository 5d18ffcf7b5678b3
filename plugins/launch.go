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
	// read returns the program and the variables it may see. It is called for
	// each start, so that a plugin that was updated and pinned anew is taken up,
	// and one that was changed is not.
	read func() (*image, []string, error)
}

// pinned is a launch of the plugin that the lock file pins for uri's scheme.
func (h *Host) pinned(uri core.KeyURI) launch {
	return launch{
		scheme: uri.Scheme, uri: uri.String(), name: FilePrefix + uri.Scheme,
		read: func() (*image, []string, error) {
			img, env, err := h.opts.readPinned(uri.Scheme)
			if meant, ok := core.MeantKeyURI(uri.String()); ok && err != nil && h.opts.absent(uri.Scheme) {
				err = fmt.Errorf("%w\nwrite %s", err, meant)
			}
			return img, env, err
		},
	}
}

// named is a launch of a file that is not pinned.
func (h *Host) named(path string, uri core.KeyURI, env []string) launch {
	return launch{
		scheme: uri.Scheme, uri: uri.String(), name: filepath.Base(path),
		read: func() (*image, []string, error) {
			img, err := readImage(path)
			return img, env, err
		},
	}
}

// readPinned reads a plugin and compares it with its pin.
func (o *HostOptions) readPinned(scheme string) (*image, []string, error) {
	p, err := o.lookUp(scheme)
	if err != nil {
		return nil, nil, err
	}
	if err := checkLockDir(o); err != nil {
		return nil, nil, err
	}
	path := filepath.Join(o.Dir, p.File)
	img, err := readImage(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("there is no plugin for %s:// keys: %s does not exist; install it, or correct FOREST_EXECUTOR_PLUGIN_DIR", scheme, path)
	}
	if err != nil {
		return nil, nil, err
	}
	if img.sum != p.SHA256 {
		return nil, nil, fmt.Errorf("plugin %s is not the file that was pinned: its SHA-256 is %s, the lock file says %s; if you trust the new file, run: lockwood plugin pin %s", p.File, img.sum, p.SHA256, p.File)
	}
	return img, p.Env, nil
}
