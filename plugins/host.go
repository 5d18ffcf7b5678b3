package plugins

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/plugins/isolation"
)

// HostOptions say where plugins are and how long they may take. A zero value
// means the default of each field; without Dir and LockFile no plugin can be
// opened.
type HostOptions struct {
	// Dir is the plugin directory: its files lockwood-SCHEME are the plugins.
	Dir string
	// LockFile pins them. It must not be inside Dir.
	LockFile string
	// RuntimeDir is where the private directory for sockets is made. The default is
	// what TMPDIR and XDG_RUNTIME_DIR in Environ name, and then the system's
	// directory for temporary files: the first of them where it can be made.
	RuntimeDir string
	// Hidden are files and directories that no plugin may read: those of the host's
	// secrets. A file that a key URI names is not hidden from its plugin.
	Hidden []string
	// Logger takes what the host and, with the attribute "plugin", the plugins
	// say; the default is slog.Default().
	Logger *slog.Logger
	// Environ is the environment of which plugins see what the lock file permits,
	// each as NAME=value; nil means os.Environ().
	Environ []string

	// StartTimeout bounds the start of a process, its configuration included;
	// 10 s.
	StartTimeout time.Duration
	// CallTimeout bounds each call, a restart and one repetition included; 15 s.
	CallTimeout time.Duration
	// HealthInterval is the time between two questions after a process's health,
	// and HealthTimeout how long an answer may take before the process is
	// replaced; 30 s and 3 s.
	HealthInterval, HealthTimeout time.Duration
	// StopTimeout is how long a process may take to end by itself; 2 s.
	StopTimeout time.Duration
	// RestartPause is the pause before the first restart; it doubles, with
	// jitter, up to MaxRestartPause. 100 ms and 30 s.
	RestartPause, MaxRestartPause time.Duration

	versions protocols
}

func (o *HostOptions) setDefaults() {
	for d, value := range map[*time.Duration]time.Duration{
		&o.StartTimeout: 10 * time.Second, &o.CallTimeout: 15 * time.Second,
		&o.HealthInterval: 30 * time.Second, &o.HealthTimeout: 3 * time.Second,
		&o.StopTimeout: 2 * time.Second, &o.RestartPause: 100 * time.Millisecond, &o.MaxRestartPause: 30 * time.Second,
	} {
		if *d == 0 {
			*d = value
		}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Environ == nil {
		o.Environ = os.Environ()
	}
	if o.versions == nil {
		o.versions = currentProtocols()
	}
}

// Host starts plugins and looks after them. Nothing is started, made or looked at
// before the first Open. It is safe for concurrent use.
type Host struct {
	opts HostOptions

	mu        sync.Mutex
	closed    bool
	runtime   *runtimeDir // nil before the first start
	providers map[*provider]struct{}
}

// NewHost returns a host. It fails if the options contradict each other.
func NewHost(opts HostOptions) (*Host, error) {
	opts.setDefaults()
	for _, path := range []*string{&opts.Dir, &opts.LockFile, &opts.RuntimeDir} {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return nil, fmt.Errorf("making plugin host: %w", err)
		}
		*path = abs
	}
	return &Host{opts: opts, providers: make(map[*provider]struct{})}, nil
}

// Open is a core.Factory: it checks and starts the plugin for uri's scheme, and
// configures it. What an operator has to mend is an error that says how: no
// plugin, not pinned, changed since, writable by others, no common version of the
// protocol, a URI that the plugin refuses. A plugin that crashes, hangs or says
// nothing does not fail to be opened: its provider answers core.ErrUnavailable and
// goes on trying.
func (h *Host) Open(ctx context.Context, uri core.KeyURI) (core.KeyProvider, error) {
	p, err := h.open(ctx, h.pinned(uri), true)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// OpenBinary opens uri with the plugin at path, pinned or not: whoever calls it
// trusts that file. It sees DefaultEnv, and the variables that opts names; it may
// change the files that opts names. It is for the command that examines a plugin.
// Unlike Open it fails if the plugin does not start. nil options work.
func (h *Host) OpenBinary(ctx context.Context, path string, uri core.KeyURI, opts *PinOptions) (core.KeyProvider, error) {
	if opts == nil {
		opts = &PinOptions{}
	}
	allowed := permissions{env: append(DefaultEnv(uri.Scheme), opts.Env...), writable: opts.Write}
	if err := errors.Join(checkNames(allowed.env), checkWrite(allowed.writable)); err != nil {
		return nil, err
	}
	p, err := h.open(ctx, h.named(path, uri, allowed), false)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (h *Host) open(ctx context.Context, l launch, heal bool) (*provider, error) {
	if len(l.uri) > maxURISize {
		return nil, fmt.Errorf("the key URI has %d bytes; at most %d are allowed", len(l.uri), maxURISize)
	}
	proc, err := h.start(ctx, l)
	if err != nil && (!heal || errors.Is(err, errConfiguration)) {
		return nil, err
	}
	p := newProvider(h, l)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		if proc != nil {
			proc.stop(false)
		}
		return nil, errors.New("the plugin host is closed")
	}
	h.providers[p] = struct{}{}
	if err != nil {
		p.log.Error("plugin did not start; it is tried again", "error", err)
	}
	go p.supervise(proc, err)
	return p, nil
}

// prepare does, before the first start, what has to be done once. It returns the
// private directory.
func (h *Host) prepare() (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return "", errors.New("the plugin host is closed")
	}
	if h.runtime != nil {
		return h.runtime.path, nil
	}
	if err := isolation.Supported(); err != nil {
		return "", fmt.Errorf("%w: key provider plugins need Linux: %w", errConfiguration, err)
	}
	if err := isolation.Harden(); err != nil {
		return "", fmt.Errorf("%w: plugins could read this process: %w", errConfiguration, err)
	}
	dir, err := makeRuntimeDir(h.opts.runtimeBases())
	if err != nil {
		return "", fmt.Errorf("%w: %w", errConfiguration, err)
	}
	if facts := isolation.Examine(); facts.ReadsFiles() {
		h.opts.Logger.Warn("this kernel has no Landlock: plugins can read every file that this user can; lockwood doctor says more")
	}
	h.runtime = dir
	return dir.path, nil
}

// Close closes all providers, ends their processes and removes the sockets. It may
// be called more than once.
func (h *Host) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	var open []*provider
	for p := range h.providers {
		open = append(open, p)
	}
	h.mu.Unlock()
	var wg sync.WaitGroup
	for _, p := range open {
		wg.Go(func() { _ = p.Close() })
	}
	wg.Wait()
	if h.runtime == nil {
		return nil
	}
	return h.runtime.close()
}

// hiddenFrom returns what a plugin may not read: all that is hidden but what its
// own key URI names.
func (o *HostOptions) hiddenFrom(l launch) []string {
	return slices.DeleteFunc(slices.Clone(o.Hidden), func(path string) bool { return slices.Contains(l.named, path) })
}

// runtimeBases returns where the private directory may be made, the best first.
func (o *HostOptions) runtimeBases() []string {
	if o.RuntimeDir != "" {
		return []string{o.RuntimeDir}
	}
	bases := []string{variable(o.Environ, "TMPDIR"), variable(o.Environ, "XDG_RUNTIME_DIR"), os.TempDir()}
	bases = slices.DeleteFunc(bases, func(base string) bool { return !filepath.IsAbs(base) })
	return slices.Compact(bases)
}

// forget is called by a provider that is closed.
func (h *Host) forget(p *provider) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.providers, p)
}
