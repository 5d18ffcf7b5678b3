package plugins_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/plugins"
	"github.com/lockwood-kms/lockwood/plugins/plugintest"
)

// place is a plugin directory and a lock file, to be tampered with.
type place struct {
	*plugins.Host
	dir, lock, binary string
}

func newPlace(t *testing.T) *place {
	t.Helper()
	s := &place{dir: plugintest.Install(t, "memory"), lock: filepath.Join(t.TempDir(), "plugins.lock")}
	s.binary = filepath.Join(s.dir, "lockwood-memory")
	h, err := plugins.NewHost(plugins.HostOptions{Dir: s.dir, LockFile: s.lock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	s.Host = h
	return s
}

func (s *place) pin(t *testing.T) {
	t.Helper()
	if _, err := s.Pin(s.binary, &plugins.PinOptions{Write: []string{controls(t)}}); err != nil {
		t.Fatal(err)
	}
}

// exchange puts another program in the plugin's place, as an update does.
func (s *place) exchange(t *testing.T) {
	t.Helper()
	b, err := os.ReadFile(s.binary)
	if err != nil {
		t.Fatal(err)
	}
	next := s.binary + ".next"
	if err := os.WriteFile(next, append(b, 0), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, s.binary); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestUntrusted asserts that nothing is started unless it is pinned and out of
// others' reach, and that the error says what to do.
func TestUntrusted(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, s *place)
		says  string
	}{
		"no lock file": {func(t *testing.T, s *place) { must(t, os.Remove(s.lock)) }, "lockwood plugin pin lockwood-memory"},
		"not pinned": {func(t *testing.T, s *place) {
			must(t, os.WriteFile(s.lock, []byte(`{"version":1,"plugins":{}}`), 0o600))
		}, "lockwood plugin pin lockwood-memory"},
		"changed":              {func(t *testing.T, s *place) { s.exchange(t) }, "lockwood plugin pin lockwood-memory"},
		"no plugin":            {func(t *testing.T, s *place) { must(t, os.Remove(s.binary)) }, "install it"},
		"writable plugin":      {func(t *testing.T, s *place) { s.exchange(t); must(t, os.Chmod(s.binary, 0o770)) }, "chmod go-w "},
		"writable directory":   {func(t *testing.T, s *place) { must(t, os.Chmod(s.dir, 0o777)) }, "chmod go-w "},
		"writable lock file":   {func(t *testing.T, s *place) { must(t, os.Chmod(s.lock, 0o660)) }, "chmod go-w "},
		"writable lock's home": {func(t *testing.T, s *place) { must(t, os.Chmod(filepath.Dir(s.lock), 0o770)) }, "chmod go-w "},
		"plugin is a link": {func(t *testing.T, s *place) {
			must(t, os.Rename(s.binary, s.binary+".real"))
			must(t, os.Symlink(s.binary+".real", s.binary))
		}, "symbolic link"},
		"lock file is a link": {func(t *testing.T, s *place) {
			must(t, os.Rename(s.lock, s.lock+".real"))
			must(t, os.Symlink(s.lock+".real", s.lock))
		}, "symbolic link"},
		"directory is a link to a writable one": {func(t *testing.T, s *place) {
			target := filepath.Join(t.TempDir(), "real")
			must(t, os.Rename(s.dir, target))
			must(t, os.Symlink(target, s.dir))
			must(t, os.Chmod(target, 0o777))
		}, "chmod go-w "},
		"plugin is a pipe": {func(t *testing.T, s *place) {
			must(t, os.Remove(s.binary))
			must(t, syscall.Mkfifo(s.binary, 0o700))
		}, "not a regular file"},
		"not executable": {func(t *testing.T, s *place) { s.exchange(t); must(t, os.Chmod(s.binary, 0o600)) }, "chmod u+x"},
		"unknown member": {func(t *testing.T, s *place) { edit(t, s.lock, `"version": 1`, `"version": 1, "more": 1`) }, "unknown"},
		"later version":  {func(t *testing.T, s *place) { edit(t, s.lock, `"version": 1`, `"version": 2`) }, "version is 2"},
		"another file":   {func(t *testing.T, s *place) { edit(t, s.lock, `"file": "lockwood-memory"`, `"file": "../x"`) }, `it must be "lockwood-memory"`},
		"auth secret":    {func(t *testing.T, s *place) { edit(t, s.lock, `"GODEBUG"`, `"FOREST_AUTH_SECRET"`) }, "may never be shown"},
		"encryption key": {func(t *testing.T, s *place) {
			edit(t, s.lock, `"GODEBUG"`, `"FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS"`)
		}, "may never be shown"},
		"database":                          {func(t *testing.T, s *place) { edit(t, s.lock, `"GODEBUG"`, `"DATABASE_URL"`) }, "may never be shown"},
		"loader":                            {func(t *testing.T, s *place) { edit(t, s.lock, `"GODEBUG"`, `"LD_PRELOAD"`) }, "may never be shown"},
		"lock file writable for the plugin": {func(t *testing.T, s *place) { edit(t, s.lock, `"write": [`, `"write": ["`+s.lock+`", `) }, `take it out of "write"`},
		"relative path":                     {func(t *testing.T, s *place) { edit(t, s.lock, `"write": [`, `"write": ["x", `) }, "absolute path"},
		"pattern":                           {func(t *testing.T, s *place) { edit(t, s.lock, `"GODEBUG"`, `"AWS_*"`) }, "named in full"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newPlace(t)
			s.pin(t)
			ctl := newControl(t)
			c.spoil(t, s)
			_, err := s.Open(t.Context(), ctl.uri("memory", "one"))
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v; want it to say %q", err, c.says)
			}
			if exists(ctl.dir + "/pids") {
				t.Error("the plugin was started")
			}
		})
	}
}

func edit(t *testing.T, path, old, replacement string) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	if !strings.Contains(string(b), old) {
		t.Fatalf("%s is not in the lock file:\n%s", old, b)
	}
	must(t, os.WriteFile(path, []byte(strings.Replace(string(b), old, replacement, 1)), 0o600))
}

func TestLockFileInsideDirectory(t *testing.T) {
	dir := plugintest.Install(t, "memory")
	for _, lock := range []string{filepath.Join(dir, "plugins.lock"), filepath.Join(dir, "..", filepath.Base(dir), "plugins.lock")} {
		h, err := plugins.NewHost(plugins.HostOptions{Dir: dir, LockFile: lock})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Pin("memory", nil); err == nil || !strings.Contains(err.Error(), "inside the plugin directory") {
			t.Errorf("pinning into %s: %v", lock, err)
		}
	}
}

// TestReplacedWhileRunning exchanges the plugin under a running process: that one
// goes on, the next does not start, and a new pin takes the new file up.
func TestReplacedWhileRunning(t *testing.T) {
	s := newPlace(t)
	s.pin(t)
	c := newControl(t)
	p := mustOpen(t, s.Host, c.uri("memory", "one"))
	s.exchange(t)
	if _, err := p.Status(t.Context()); err != nil {
		t.Fatalf("the running process: %v", err)
	}
	must(t, syscall.Kill(c.pid(), syscall.SIGKILL))
	eventually(t, "the new file is refused", func() bool {
		_, err := p.Status(t.Context())
		return errors.Is(err, core.ErrUnavailable) && strings.Contains(err.Error(), "not the file that was pinned") &&
			strings.Contains(err.Error(), "lockwood plugin pin lockwood-memory")
	})
	was := strings.Count(c.read("pids"), "\n")
	pinned, err := s.Pin("lockwood-memory", nil)
	if err != nil || pinned.Was == "" || pinned.Was == pinned.SHA256 {
		t.Fatalf("pinning anew: %+v, %v", pinned, err)
	}
	eventually(t, "the new file answers", func() bool {
		_, err := p.Status(t.Context())
		return err == nil
	})
	if now := strings.Count(c.read("pids"), "\n"); now != was+1 {
		t.Errorf("%d processes were started, want one more than %d", now, was)
	}
}

// TestPinKeepsNames asserts that an update does not undo what the operator said of
// the environment.
func TestPinKeepsNames(t *testing.T) {
	s := newPlace(t)
	if _, err := s.Pin("memory", &plugins.PinOptions{Env: []string{"B", "A", "B"}, Write: []string{"/b", "/a"}}); err != nil {
		t.Fatal(err)
	}
	p, err := s.Pin("memory", nil)
	if err != nil || strings.Join(p.Env, ",") != "A,B" || strings.Join(p.Write, ",") != "/a,/b" {
		t.Errorf("pinned again: %+v, %v", p, err)
	}
	if _, err := s.Pin("memory", &plugins.PinOptions{Env: []string{"DATABASE_URL"}}); err == nil {
		t.Error("a forbidden name was pinned")
	}
	for _, path := range []string{"relative", "/", "/a/", "/a/../b", s.dir, filepath.Dir(s.dir), s.lock, filepath.Dir(s.lock), s.binary} {
		if _, err := s.Pin("memory", &plugins.PinOptions{Write: []string{path}}); err == nil {
			t.Errorf("the plugin may write to %s", path)
		}
	}
	if p, err := s.Pin("memory", &plugins.PinOptions{Env: []string{}, Write: []string{}}); err != nil || len(p.Env)+len(p.Write) != 0 {
		t.Errorf("nothing: %+v, %v", p, err)
	}
	if _, err := s.Pin("/bin/lockwood-memory", nil); err == nil || !strings.Contains(err.Error(), "not in the plugin directory") {
		t.Errorf("a plugin elsewhere: %v", err)
	}
	if info, err := os.Stat(s.lock); err != nil || info.Mode().Perm()&0o022 != 0 {
		t.Errorf("lock file: %v, %v", info.Mode(), err)
	}
}

func TestList(t *testing.T) {
	s := newPlace(t)
	list, err := s.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Pinned || list[0].Trusted || !list[0].Found || list[0].Problem == nil || list[0].Protocol != 0 {
		t.Fatalf("unpinned: %+v, %v", list, err)
	}
	s.pin(t)
	list, err = s.List(t.Context())
	if err != nil || len(list) != 1 || !list[0].Trusted || list[0].Protocol != 1 || list[0].Version != "test" || list[0].Problem != nil {
		t.Fatalf("pinned: %+v, %v", list, err)
	}
	must(t, os.Remove(s.binary))
	list, err = s.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Found || !list[0].Pinned || list[0].Problem == nil {
		t.Fatalf("removed: %+v, %v", list, err)
	}
}

// TestOpenBinary asserts that a file can be examined without a pin.
func TestOpenBinary(t *testing.T) {
	s := newPlace(t)
	p, err := s.OpenBinary(t.Context(), s.binary, newControl(t).uri("memory", "one"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Status(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestDefaultEnv asserts that the allow-lists hold nothing that may never be shown.
func TestDefaultEnv(t *testing.T) {
	for _, scheme := range []string{"awskms", "gcpkms", "vault", "other"} {
		s := &place{dir: plugintest.Install(t, scheme), lock: filepath.Join(t.TempDir(), "lock")}
		h, err := plugins.NewHost(plugins.HostOptions{Dir: s.dir, LockFile: s.lock})
		must(t, err)
		if p, err := h.Pin(scheme, nil); err != nil || len(p.Env) == 0 {
			t.Errorf("%s: %+v, %v", scheme, p, err)
		}
	}
}
