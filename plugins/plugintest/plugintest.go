// Package plugintest lets the tests of a key provider run it as a plugin, without
// building one: the test binary itself is started again, pinned and hardened as in
// production, behind a real plugins.Host. It exists because a provider that works
// in process may still fail across the boundary, and because a test that needs a
// separate build is not run.
//
// A package's TestMain hands over its factories, and a test opens key URIs:
//
//	func TestMain(m *testing.M) {
//		plugintest.Main(m, map[string]core.Factory{awskms.Scheme: awskms.Open})
//	}
//
//	func TestConformanceAsPlugin(t *testing.T) {
//		p := plugintest.Open(t, "awskms:///alias/forest?endpoint="+server.URL)
//		…
//	}
//
// The provider sees no more of the environment than a plugin does: those of
// plugins.DefaultEnv, and what Options.Env permits, as t.Setenv has set it.
package plugintest

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/plugins"
)

// Main runs the tests of a package, or, in a process that a host started, serves
// the factory of the scheme it was started for. It does not return.
func Main(m *testing.M, factories map[string]core.Factory) {
	scheme, isPlugin := strings.CutPrefix(os.Args[0], plugins.FilePrefix)
	if open, ok := factories[scheme]; isPlugin && ok {
		plugins.Serve(scheme, open, &plugins.ServeOptions{Version: "test"})
	}
	os.Exit(m.Run()) //nolint:revive // it is what TestMain does
}

// Options are the optional parts of NewHost.
type Options struct {
	// Host is used but for Dir and LockFile, which are made.
	Host plugins.HostOptions
	// Env names variables that the plugin may see besides plugins.DefaultEnv.
	Env []string
	// Write are absolute paths of files and directories that it may change.
	Write []string
}

// Open returns the provider of a key URI in a process of its own, behind a host of
// its own. Both end with the test. The scheme is one that Main was given.
func Open(t testing.TB, uri string) core.KeyProvider {
	t.Helper()
	parsed, err := core.ParseKeyURI(uri)
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewHost(t, []string{parsed.Scheme}, nil).Open(t.Context(), parsed)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// NewHost returns a host for plugins of these schemes, each the test binary, in a
// directory of the test and pinned. It is closed with the test. nil options work.
func NewHost(t testing.TB, schemes []string, opts *Options) *plugins.Host {
	t.Helper()
	if opts == nil {
		opts = &Options{}
	}
	o := opts.Host
	o.Dir, o.LockFile = Install(t, schemes...), filepath.Join(t.TempDir(), "plugins.lock")
	if o.Environ == nil {
		// Under -race a process sleeps for a second before it ends.
		o.Environ = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	h, err := plugins.NewHost(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("closing the host: %v", err)
		}
	})
	for _, scheme := range schemes {
		env := append(plugins.DefaultEnv(scheme), append(opts.Env, "GORACE")...)
		if _, err := h.Pin(scheme, &plugins.PinOptions{Env: env, Write: opts.Write}); err != nil {
			t.Fatalf("pinning: %v", err)
		}
	}
	return h
}

// Install makes a plugin directory in which the test binary stands under the name
// of a plugin for each scheme, and returns its path. Nothing is pinned.
func Install(t testing.TB, schemes ...string) string {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, scheme := range schemes {
		if err := link(binary, filepath.Join(dir, plugins.FilePrefix+scheme)); err != nil {
			t.Fatalf("installing plugin: %v", err)
		}
	}
	return dir
}

// link gives a file a second name, or copies it where that cannot be.
func link(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("copying the test binary: %w", err)
	}
	return nil
}
