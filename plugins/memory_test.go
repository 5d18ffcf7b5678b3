package plugins_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/plugins"
	"github.com/lockwood-kms/lockwood/plugins/plugintest"
)

// memory is a provider whose key is made of its URI, so that it is the same in any
// process, and which does what the files in its directory say:
//
//	versions  how many versions the KEK has
//	fault     what every call answers, or does instead of an answer
//	look      files that it tries to read at the start, noting how that went
//
// It writes there the IDs of its processes, and their environment.
type memory struct {
	name, dir string
	closed    atomic.Bool
}

func openMemory(_ context.Context, uri core.KeyURI) (core.KeyProvider, error) {
	if err := uri.CheckOptions("dir", "spy", "token_file"); err != nil {
		return nil, err
	}
	m := &memory{name: uri.Path, dir: uri.Options["dir"]}
	if m.name == "" {
		return nil, errors.New("the key URI names no key; write memory:///NAME")
	}
	if uri.Options["spy"] != "" {
		spyOnParent(m.path("spied"))
	}
	for path := range strings.Lines(m.read("look")) {
		m.appendLine("seen", attempt(func() error {
			_, err := os.ReadFile(strings.TrimSpace(path))
			return err
		}))
	}
	pid, _ := os.Readlink("/proc/self") // as its host has it, and not a namespace of its own
	m.appendLine("pids", pid)
	m.appendLine("environ", strings.Join(os.Environ(), "\n"))
	return m, nil
}

func (m *memory) path(name string) string { return filepath.Join(m.dir, name) }

func (m *memory) read(name string) string {
	b, _ := os.ReadFile(m.path(name))
	return string(b)
}

func (m *memory) appendLine(name, line string) {
	if m.dir == "" {
		return // a test that does not look
	}
	f, err := os.OpenFile(m.path(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = f.WriteString(line + "\n")
}

func (m *memory) aead(version int) cipher.AEAD {
	key := sha256.Sum256(fmt.Appendf(nil, "FAKE %s %d", m.name, version))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return aead
}

func (m *memory) versions() int {
	b, _ := os.ReadFile(m.path("versions"))
	n, _ := strconv.Atoi(string(b))
	return max(n, 1)
}

func (m *memory) kekID() core.KEKID {
	return core.NewKEKID("memory:"+m.name, strconv.Itoa(m.versions()))
}

// faults are what the file "fault" can hold: the sentinels, and more.
var faults = map[string]error{
	"denied":      fmt.Errorf("grant memory:use to this caller: %w", core.ErrKeyDenied),
	"missing":     fmt.Errorf("unset: %w", core.ErrKeyMissing),
	"mismatch":    core.ErrKeyMismatch,
	"unavailable": fmt.Errorf("connection refused: %w", core.ErrUnavailable),
	"invalid":     core.ErrInvalidCiphertext,
	"throttled":   &core.RetryAfterError{After: 7 * time.Second, Err: fmt.Errorf("throttled: %w", core.ErrUnavailable)},
	"unknown":     errors.New("something else"),
}

func (m *memory) ready(ctx context.Context) error {
	if m.closed.Load() {
		return fmt.Errorf("closed: %w", core.ErrUnavailable)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", core.ErrUnavailable, err)
	}
	b, _ := os.ReadFile(m.path("fault"))
	switch fault := string(b); fault {
	case "", "garbage":
		return nil
	case "hang":
		select {}
	case "hang-once": // only in the process that comes first
		if f, err := os.OpenFile(m.path("hanging"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err == nil {
			_ = f.Close()
			select {}
		}
		return nil
	default:
		return faults[fault]
	}
}

func (m *memory) garbage() bool {
	b, _ := os.ReadFile(m.path("fault"))
	return string(b) == "garbage"
}

func (m *memory) WrapDataKey(ctx context.Context, dataKey []byte, aad core.AAD) (core.WrappedKey, error) {
	if err := m.ready(ctx); err != nil {
		return core.WrappedKey{}, err
	}
	if len(dataKey) != core.DataKeySize {
		return core.WrappedKey{}, fmt.Errorf("data key of %d bytes", len(dataKey))
	}
	if m.garbage() {
		return core.WrappedKey{KEKID: m.kekID(), Wrapped: make([]byte, core.MaxWrappedSize+1)}, nil
	}
	return core.WrappedKey{KEKID: m.kekID(), Wrapped: m.aead(m.versions()).Seal(nil, nil, dataKey, aad.Bytes())}, nil
}

func (m *memory) GenerateDataKey(ctx context.Context, aad core.AAD) (core.DataKey, error) {
	plaintext := make([]byte, core.DataKeySize)
	if !m.garbage() {
		rand.Read(plaintext)
	}
	w, err := m.WrapDataKey(ctx, plaintext, aad)
	if err != nil {
		return core.DataKey{}, err
	}
	return core.DataKey{Plaintext: plaintext, Wrapped: w}, nil
}

func (m *memory) UnwrapDataKey(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
	if err := m.ready(ctx); err != nil {
		return nil, err
	}
	if m.garbage() {
		return []byte("short"), nil
	}
	n, err := strconv.Atoi(w.KEKID.Version())
	if err != nil || w.KEKID.Key() != m.kekID().Key() || n < 1 || n > m.versions() {
		return nil, core.ErrInvalidCiphertext
	}
	dataKey, err := m.aead(n).Open(nil, nil, w.Wrapped, aad.Bytes())
	if err != nil {
		return nil, core.ErrInvalidCiphertext
	}
	return dataKey, nil
}

func (m *memory) Status(ctx context.Context) (core.Status, error) {
	if err := m.ready(ctx); err != nil {
		return core.Status{}, err
	}
	if m.garbage() {
		return core.Status{KEKID: "#1"}, nil
	}
	return core.Status{KEKID: m.kekID(), Warnings: []string{"a warning"}}, nil
}

func (m *memory) Close() error {
	m.closed.Store(true)
	return nil
}

// control is the test's end of a memory provider.
type control struct {
	t   *testing.T
	dir string
}

func newControl(t *testing.T) *control {
	t.Helper()
	dir, err := os.MkdirTemp(controls(t), "") //nolint:usetesting // a plugin has to be let write there before
	if err != nil {
		t.Fatal(err)
	}
	return &control{t: t, dir: dir}
}

var controlDirs sync.Map

// controls is the directory of what a test tells its plugins, which they can write
// to.
func controls(t *testing.T) string {
	t.Helper()
	name, _, _ := strings.Cut(t.Name(), "/")
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("lockwood-%d-%s", os.Getpid(), name)) //nolint:usetesting // subtests share it with the test that holds them
	if _, made := controlDirs.LoadOrStore(name, true); made {
		return dir
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		controlDirs.Delete(name)
		_ = os.RemoveAll(dir)
	})
	return dir
}

// newHost is plugintest.NewHost for plugins that a control tells what to do.
func newHost(t *testing.T, schemes []string, opts *plugintest.Options) *plugins.Host {
	t.Helper()
	if opts == nil {
		opts = &plugintest.Options{}
	}
	opts.Write = append(opts.Write, controls(t))
	return plugintest.NewHost(t, schemes, opts)
}

func (c *control) uri(scheme, name string) core.KeyURI {
	c.t.Helper()
	uri, err := core.ParseKeyURI(scheme + ":///" + name + "?dir=" + c.dir)
	if err != nil {
		c.t.Fatal(err)
	}
	return uri
}

func (c *control) put(name, content string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), []byte(content), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// fault makes every call do what faults names; "" ends it.
func (c *control) fault(name string) func(context.Context) (func(), error) {
	return func(context.Context) (func(), error) {
		c.put("fault", name)
		return func() { c.put("fault", "") }, nil
	}
}

func (c *control) read(name string) string {
	c.t.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, name))
	if err != nil {
		c.t.Fatal(err)
	}
	return string(b)
}

// pid returns the process ID of the latest process.
func (c *control) pid() int {
	c.t.Helper()
	lines := strings.Fields(c.read("pids"))
	n, err := strconv.Atoi(lines[len(lines)-1])
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

// eventually polls until ok, or fails the test after a generous time.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("it did not happen: %s", what)
		}
		<-tick.C
	}
}
