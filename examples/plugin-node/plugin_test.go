// Package pluginnode_test builds the example plugin and runs it as Lockwood would.
// It exists because an example that is not run is soon wrong, and because a plugin
// in another language is the one proof that the protocol is what its documents say
// and not what two ends in Go happen to agree on.
package pluginnode_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/providertest"
	"github.com/lockwood-kms/lockwood/internal/buildtest"
	"github.com/lockwood-kms/lockwood/plugins"
)

const (
	scheme = "filekey"
	file   = plugins.FilePrefix + scheme
)

// newHost returns a host whose lock file pins the example, and what both log.
func newHost(t *testing.T) (*plugins.Host, *bytes.Buffer) {
	t.Helper()
	log := new(bytes.Buffer) // slog serializes the writes
	h, err := plugins.NewHost(plugins.HostOptions{
		Dir: filepath.Dir(buildPlugin(t)), LockFile: filepath.Join(t.TempDir(), "plugins.lock"),
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	must(t, err)
	t.Cleanup(func() { must(t, h.Close()) })
	_, err = h.Pin(scheme, &plugins.PinOptions{Env: []string{"PATH"}})
	must(t, err)
	return h, log
}

// newKey makes a key file with one version, and returns its path.
func newKey(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kek")
	must(t, addVersion(path, 0x11))
	return path
}

// addVersion appends a version to a key file. That it is not random is of no
// importance here, and lets a test look for it.
func addVersion(path string, b byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(bytes.Repeat([]byte{b}, core.DataKeySize))
	return err
}

func open(ctx context.Context, h *plugins.Host, text string) (core.KeyProvider, error) {
	uri, err := core.ParseKeyURI(text)
	if err != nil {
		return nil, err
	}
	return h.Open(ctx, uri)
}

func mustOpen(t *testing.T, h *plugins.Host, path string) core.KeyProvider {
	t.Helper()
	p, err := open(t.Context(), h, scheme+"://"+path)
	must(t, err)
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// moved puts what make makes in the place of a file, until the fault is over.
func moved(path string, put func() error) providertest.Fault {
	return func(context.Context) (func(), error) {
		kept := path + ".kept"
		if err := os.Rename(path, kept); err != nil {
			return nil, err
		}
		return func() { _ = os.Rename(kept, path) }, put()
	}
}

// kept is a provider whose process serves the next check too, unless one closed it. Most
// of a check's time is that of Node.js starting; TestReadme runs each in a new process.
type kept struct {
	core.KeyProvider
	closed bool
}

// Close ends the process.
func (k *kept) Close() error {
	k.closed = true
	return k.KeyProvider.Close()
}

// TestConformance runs every check of a provider, with every fault.
func TestConformance(t *testing.T) {
	t.Parallel()
	h, _ := newHost(t)
	path, other := newKey(t), filepath.Join(t.TempDir(), "kek")
	must(t, addVersion(other, 0x22))
	again := func(ctx context.Context) (core.KeyProvider, error) { return open(ctx, h, scheme+"://"+path) }
	provider := &kept{closed: true}
	foreign := mustOpen(t, h, other)
	providertest.Run(t, func(t *testing.T) *providertest.Subject {
		if provider.closed {
			p, err := again(t.Context())
			must(t, err)
			provider = &kept{KeyProvider: p}
		}
		return &providertest.Subject{
			Provider: provider,
			Foreign:  foreign,
			Deny: func(context.Context) (func(), error) {
				return func() { _ = os.Chmod(path, 0o600) }, os.Chmod(path, 0o640)
			},
			// What a volume does that went away, as near as a file can.
			Unavailable: moved(path, func() error { return os.Symlink(path, path) }),
			Missing:     moved(path, func() error { return nil }),
			Rotate:      func(context.Context) error { return addVersion(path, 0x33) },
			Lacks:       map[providertest.Hook]string{providertest.HookLenient: "there is no service: the plugin uses the key itself"},
			Restart:     again,
		}
	})
}

// TestConfigurationErrors asserts that a key URI that cannot be honoured is refused
// at the start, with what to write instead and without what was written.
func TestConfigurationErrors(t *testing.T) {
	h, _ := newHost(t)
	for text, says := range map[string]string{
		"filekey:///kek?mode=s3cret":                  "unknown option mode; this provider takes none",
		"filekey://s3cret/kek":                        "a host is named",
		"filekey://":                                  "no absolute path; write filekey:///path/of/the/file",
		"filekey:///s3cret/../kek":                    "write it out",
		"filekey:///":                                 "names no file",
		"filekey:///s3cret%FF":                        "two hexadecimal digits of UTF-8",
		"filekey:///s3cret%00":                        "names no file",
		"filekey:///" + strings.Repeat("s3cret", 200): "more than 900 bytes",
	} {
		_, err := open(t.Context(), h, text)
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%.40s: %v; want it to say %q", text, err, says)
		}
	}
}

// TestRefusedFiles asserts what becomes of each key file that is none, and that the
// error tells the operator what to do.
func TestRefusedFiles(t *testing.T) {
	h, log := newHost(t)
	for name, c := range map[string]struct {
		make func(path string) error
		want error
		says string
	}{
		"readable by others": {func(p string) error { return os.Chmod(p, 0o604) }, core.ErrKeyDenied, "run: chmod 0600"},
		"no rights":          {func(p string) error { return os.Chmod(p, 0) }, core.ErrKeyDenied, "may not be read"},
		"empty":              {func(p string) error { return os.Truncate(p, 0) }, core.ErrKeyMissing, "head -c 32 /dev/urandom"},
		"torn":               {func(p string) error { return os.Truncate(p, 31) }, core.ErrUnavailable, "keys of 32 bytes"},
		"absurd":             {func(p string) error { return os.Truncate(p, 1<<20) }, core.ErrUnavailable, "1 to 64 keys"},
		"a pipe": {func(p string) error {
			if err := os.Remove(p); err != nil {
				return err
			}
			return syscall.Mkfifo(p, 0o600)
		}, core.ErrUnavailable, "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			path := newKey(t)
			p := mustOpen(t, h, path)
			must(t, c.make(path))
			_, err := p.Status(t.Context())
			if !isOnly(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v; want %v that says %q", err, c.want, c.says)
			}
		})
	}
	if strings.Contains(log.String(), strings.Repeat("\x11", 8)) || strings.Contains(log.String(), strings.Repeat("11", 8)) {
		t.Error("the log shows the key")
	}
}

// TestStartedByHand asserts that the plugin tells a person what it is, and fails.
func TestStartedByHand(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), buildPlugin(t))
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err == nil || len(out) > 0 || !strings.Contains(said.String(), "lockwood plugin pin --env PATH lockwood-filekey") {
		t.Errorf("%v, output %q, said %q", err, out, said.String())
	}
}

// TestReadme runs the commands under "Examine" and "Install" as they are written, but for
// the place of the key.
func TestReadme(t *testing.T) {
	t.Parallel() // most of the time is that of processes starting
	plugin := buildPlugin(t)
	bin, dir := t.TempDir(), t.TempDir()
	must(t, buildtest.Lockwood("../..", bin))
	must(t, os.Mkdir(filepath.Join(dir, "dist"), 0o700))
	must(t, os.Link(plugin, filepath.Join(dir, "dist", file)))
	readme, err := os.ReadFile("README.md")
	must(t, err)
	command := func(section string) string {
		_, text, _ := strings.Cut(string(readme), "## "+section+"\n")
		_, text, _ = strings.Cut(text, "```sh\n")
		commands, _, found := strings.Cut(text, "```")
		if !found {
			t.Fatalf("the README has no commands under %s", section)
		}
		commands = strings.ReplaceAll(commands, "/etc/lockwood", dir+"/etc")
		return run(t, dir, "env", "PATH="+bin+":"+os.Getenv("PATH"), "FOREST_EXECUTOR_PLUGIN_DIR="+dir+"/plugins",
			"FOREST_EXECUTOR_PLUGIN_LOCK="+dir+"/plugins.lock", "sh", "-euc", commands)
	}
	out := command("Examine")
	for _, check := range providertest.Checks() {
		if !strings.Contains(out, " "+check.Name+": ") {
			t.Errorf("nothing is said of the check %s", check.Name)
		}
	}
	if n := strings.Count(out, "\nskip "); n != 10 { // those that want a fault
		t.Errorf("%d checks are skipped:\n%s", n, out)
	}
	if out := command("Install"); !strings.Contains(out, "filekey:"+dir+"/etc/kek#") {
		t.Errorf("the check after installing tells no key:\n%s", out)
	}
}

func isOnly(err, want error) bool {
	for _, s := range []error{core.ErrKeyDenied, core.ErrKeyMissing, core.ErrUnavailable, core.ErrInvalidCiphertext} {
		if errors.Is(err, s) != errors.Is(want, s) {
			return false
		}
	}
	return true
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
