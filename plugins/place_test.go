package plugins_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/seccomptest"
	"github.com/lockwood-kms/lockwood/plugins"
	"github.com/lockwood-kms/lockwood/plugins/isolation"
	"github.com/lockwood-kms/lockwood/plugins/plugintest"
)

// TestRuntimeDirectory asserts where the private directory is made, and that the
// error names what can be set where it cannot be made.
func TestRuntimeDirectory(t *testing.T) {
	good, other := shortDir(t), shortDir(t)
	missing := filepath.Join(good, "missing")
	for name, c := range map[string]struct {
		environ []string
		want    string // the directory that is used, or what the error says
	}{
		"TMPDIR first":                  {[]string{"TMPDIR=" + good, "XDG_RUNTIME_DIR=" + other}, good},
		"XDG_RUNTIME_DIR":               {[]string{"XDG_RUNTIME_DIR=" + good}, good},
		"a TMPDIR that is not there":    {[]string{"TMPDIR=" + missing, "XDG_RUNTIME_DIR=" + good}, good},
		"a TMPDIR of too many bytes":    {[]string{"TMPDIR=" + longDir(t), "XDG_RUNTIME_DIR=" + good}, good},
		"a TMPDIR that is not absolute": {[]string{"TMPDIR=.", "XDG_RUNTIME_DIR=" + good}, good},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, []string{"memory"}, &plugintest.Options{Host: plugins.HostOptions{Environ: c.environ}})
			mustOpen(t, h, newControl(t).uri("memory", "one"))
			if entries, _ := filepath.Glob(filepath.Join(c.want, "lockwood-run-*")); len(entries) != 1 {
				t.Errorf("private directories there: %v", entries)
			}
		})
	}
	h := newHost(t, []string{"memory"}, &plugintest.Options{Host: plugins.HostOptions{RuntimeDir: missing}})
	if _, err := h.Open(t.Context(), newControl(t).uri("memory", "one")); err == nil || !strings.Contains(err.Error(), "set TMPDIR or XDG_RUNTIME_DIR") || !strings.Contains(err.Error(), missing) {
		t.Errorf("no place: %v", err)
	}
}

func longDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	must(t, os.Mkdir(dir, 0o700))
	return dir
}

// TestOwnTemporaryDirectory asserts that a plugin has a directory to write to, which
// goes with it, and that it does not see its host's.
func TestOwnTemporaryDirectory(t *testing.T) {
	base := shortDir(t)
	h := newHost(t, []string{"memory"}, &plugintest.Options{Env: []string{"TMPDIR"}, Host: plugins.HostOptions{Environ: []string{"TMPDIR=" + base}}})
	c := newControl(t)
	mustOpen(t, h, c.uri("memory", "one"))
	var dir string
	for line := range strings.Lines(c.read("environ")) {
		if value, ok := strings.CutPrefix(line, "TMPDIR="); ok {
			dir = strings.TrimSpace(value)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 || dir == base || !strings.HasPrefix(dir, base) {
		t.Errorf("TMPDIR is %q: %v", dir, err)
	}
	must(t, h.Close())
	if exists(dir) {
		t.Error("it is still there")
	}
}

// TestHidden asserts that a plugin cannot read what is hidden, unless its own key URI
// names it, and can read the rest.
func TestHidden(t *testing.T) {
	if isolation.Examine().ReadsFiles() {
		t.Skip("this kernel has no Landlock")
	}
	c, dir := newControl(t), t.TempDir()
	var paths []string
	for _, name := range []string{"secret", "own", "free"} {
		paths = append(paths, filepath.Join(dir, name))
		must(t, os.WriteFile(paths[len(paths)-1], []byte("FAKE"), 0o600))
	}
	c.put("look", strings.Join(paths, "\n"))
	h := newHost(t, []string{"memory"}, &plugintest.Options{Host: plugins.HostOptions{Hidden: paths[:2]}})
	uri, err := core.ParseKeyURI(c.uri("memory", "one").String() + "&token_file=" + paths[1])
	must(t, err)
	mustOpen(t, h, uri)
	if got := c.read("seen"); got != "refused\nread\nread\n" {
		t.Errorf("the hidden file, the plugin's own, and another: %q", got)
	}
}

// TestLargePlugin asserts that a plugin's file passes through its host and does not
// stay: the memory that the host has of the system grows by less than the file.
func TestLargePlugin(t *testing.T) {
	const padding, most = 96 << 20, 48 << 20
	s := newPlace(t)
	larger := s.binary + ".larger"
	must(t, exec.CommandContext(t.Context(), "cp", s.binary, larger).Run())
	info, err := os.Stat(larger)
	must(t, err)
	must(t, os.Truncate(larger, info.Size()+padding))
	must(t, os.Rename(larger, s.binary))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s.pin(t)
	mustOpen(t, s.Host, newControl(t).uri("memory", "one"))
	runtime.ReadMemStats(&after)
	if grown := int64(after.Sys) - int64(before.Sys); grown > most {
		t.Errorf("the host grew by %d MiB", grown>>20)
	}
}

// TestNoExec runs plugins where a program cannot be executed from memory, from the
// private directory, or from either: the error says which, and what to set.
func TestNoExec(t *testing.T) {
	namespaces := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	if os.Geteuid() != 0 { // anybody can mount in a namespace of their own
		namespaces.Cloneflags |= unix.CLONE_NEWUSER
		namespaces.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
	}
	for name, c := range map[string]struct {
		mode string
		want []string
	}{
		"no memory":                 {"no-memfd exec program", []string{"opened"}},
		"no memory and noexec":      {"no-memfd noexec program", []string{"neither from memory (memfd_create: operation not permitted)", "mounted noexec", "permit memfd_create, or set TMPDIR"}},
		"a script":                  {"memfd exec script", []string{"opened"}},
		"a script and noexec":       {"memfd noexec script", []string{"is a script", "mounted noexec", "set TMPDIR"}},
		"noexec, but memory is not": {"memfd noexec program", []string{"opened"}},
		"read-only":                 {"memfd read-only program", []string{"read-only file system", "set TMPDIR or XDG_RUNTIME_DIR"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := shortDir(t)
			for _, dir := range []string{"plugins", "home", "mount"} {
				must(t, os.Mkdir(filepath.Join(base, dir), 0o755))
			}
			binary := filepath.Join(base, "plugins", "lockwood-memory")
			installed := filepath.Join(plugintest.Install(t, "memory"), "lockwood-memory")
			if strings.HasSuffix(c.mode, "script") {
				must(t, os.WriteFile(binary, fmt.Appendf(nil, "#!/bin/bash\nexec -a lockwood-memory %s\n", installed), 0o755))
			} else {
				must(t, os.Link(installed, binary))
			}
			cmd := exec.CommandContext(t.Context(), installed)
			cmd.Args = []string{"mounthost", base, c.mode}
			cmd.SysProcAttr = namespaces
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			must(t, cmd.Run())
			for _, want := range c.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("it does not say %q: %s", want, out.String())
				}
			}
		})
	}
}

// runMountHost is a host whose directory for sockets is a file system of its own,
// in a mount namespace: BASE MODE.
func runMountHost(args []string) int {
	err := mountHost(args[0], strings.Fields(args[1]))
	if err != nil {
		fmt.Fprintln(os.Stdout, "failed:", err)
		return 0
	}
	fmt.Fprintln(os.Stdout, "opened")
	return 0
}

func mountHost(base string, mode []string) error {
	place := filepath.Join(base, "mount")
	flags := map[string]uintptr{"noexec": unix.MS_NOEXEC, "read-only": unix.MS_RDONLY}[mode[1]]
	if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("tmpfs", place, "tmpfs", flags, "mode=0700")); err != nil {
		return err
	}
	if mode[0] == "no-memfd" {
		if err := seccomptest.Refuse([]uint32{unix.SYS_MEMFD_CREATE}); err != nil {
			return err
		}
	}
	opts := plugins.HostOptions{Dir: filepath.Join(base, "plugins"), LockFile: filepath.Join(base, "home/lock"), Environ: []string{"TMPDIR=" + place}}
	if mode[1] == "read-only" { // as is all else in a container
		opts.RuntimeDir = place
	}
	h, err := plugins.NewHost(opts)
	if err != nil {
		return err
	}
	defer h.Close()
	if _, err := h.Pin("memory", nil); err != nil {
		return err
	}
	uri, err := core.ParseKeyURI("memory:///one")
	if err != nil {
		return err
	}
	p, err := h.Open(context.Background(), uri)
	if err != nil {
		return err
	}
	_, err = p.Status(context.Background())
	return err
}
