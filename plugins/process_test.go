package plugins_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/plugins"
	"github.com/lockwood-kms/lockwood/plugins/plugintest"
)

func proc(pid int, name string) string { return filepath.Join("/proc", strconv.Itoa(pid), name) }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// alive reports whether a process runs. An orphan that is dead stays a zombie where
// the first process of a container does not reap.
func alive(pid int) bool {
	b, err := os.ReadFile(proc(pid, "stat"))
	if err != nil {
		return false
	}
	_, state, _ := bytes.Cut(b, []byte(") "))
	return !bytes.HasPrefix(state, []byte("Z")) && !bytes.HasPrefix(state, []byte("X"))
}

// secrets are what no plugin may see; the values are made up.
var secrets = map[string]string{
	"FOREST_EXECUTOR_ENCRYPTION_KEY":           "FAKE-encryption-key",
	"FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS": "FAKE-previous-keys",
	"FOREST_AUTH_SECRET":                       "FAKE-auth-secret",
	"DATABASE_URL":                             "postgres://u:FAKE-password@h/d",
	"DATABASE_PASSWORD":                        "FAKE-password",
}

// TestEnvironment reads the environment of a live plugin.
func TestEnvironment(t *testing.T) {
	for name, value := range secrets {
		t.Setenv(name, value)
	}
	t.Setenv("PERMITTED", "yes")
	t.Setenv("NOT_PERMITTED", "FAKE-other")
	c := newControl(t)
	h := newHost(t, []string{"memory"}, &plugintest.Options{Env: []string{"PERMITTED"}})
	mustOpen(t, h, c.uri("memory", "one"))
	seen := c.read("environ") // what the plugin itself sees
	if b, err := os.ReadFile(proc(c.pid(), "environ")); err == nil {
		seen += string(b)
	} else if os.Geteuid() == 0 {
		t.Fatal(err) // others may not look at a hardened process
	}
	for name := range secrets {
		if strings.Contains(seen, name) {
			t.Errorf("the plugin sees %s", name)
		}
	}
	if strings.Contains(seen, "FAKE") {
		t.Error("the plugin sees a value that it may not")
	}
	if !strings.Contains(seen, "PERMITTED=yes") || strings.Contains(seen, "NOT_PERMITTED") {
		t.Error("the plugin does not see exactly what it may")
	}
}

// TestSockets asserts that the directory of the sockets is private, that nobody
// without the certificate of the host can use them, and that nothing is left.
func TestSockets(t *testing.T) {
	base := shortDir(t)
	abandoned := filepath.Join(base, "lockwood-run-1") // of a host that was killed
	must(t, os.Mkdir(abandoned, 0o700))
	must(t, os.WriteFile(filepath.Join(abandoned, "alive"), nil, 0o600))
	h := newHost(t, []string{"memory"}, &plugintest.Options{Host: plugins.HostOptions{RuntimeDir: base}})
	if entries, _ := os.ReadDir(base); len(entries) != 1 {
		t.Errorf("before the first plugin is opened: %v", entries)
	}
	mustOpen(t, h, newControl(t).uri("memory", "one"))
	if exists(abandoned) {
		t.Error("what a killed host left behind is still there")
	}
	var sockets []string
	must(t, filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type() == fs.ModeSocket {
			sockets = append(sockets, path)
		}
		return err
	}))
	if len(sockets) != 1 {
		t.Fatalf("sockets %v", sockets)
	}
	for dir := filepath.Dir(sockets[0]); dir != base; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, info.Mode(), err)
		}
	}
	refusesStrangers(t, sockets[0])
	must(t, h.Close())
	if entries, _ := os.ReadDir(base); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "lw") //nolint:usetesting // a socket's path is short
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// refusesStrangers connects without a certificate.
func refusesStrangers(t *testing.T, socket string) {
	t.Helper()
	raw, err := net.Dial("unix", socket)
	must(t, err)
	defer raw.Close()
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	err = conn.Handshake()
	if err == nil { // with TLS 1.3 the client learns of the refusal by reading
		_, err = conn.Read(make([]byte, 1))
	}
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without a certificate: %v", err)
	}
}

// TestSeveralAtOnce opens two keys of one plugin: each has a process of its own,
// and one that ends leaves the other alone.
func TestSeveralAtOnce(t *testing.T) {
	h := newHost(t, []string{"memory"}, nil)
	one, two := newControl(t), newControl(t)
	p1, p2 := mustOpen(t, h, one.uri("memory", "one")), mustOpen(t, h, two.uri("memory", "two"))
	if one.pid() == two.pid() {
		t.Fatal("two keys share a process")
	}
	must(t, p1.Close())
	if alive(one.pid()) {
		t.Error("a closed provider's process runs on")
	}
	if st, err := p2.Status(t.Context()); err != nil || st.KEKID.Key() != "memory:two" {
		t.Errorf("the other key: %+v, %v", st, err)
	}
}

// TestLogs asserts that what a plugin writes arrives with its name, and its last
// words as an error.
func TestLogs(t *testing.T) {
	var out syncBuffer
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo}))
	h := newHost(t, []string{"crash"}, &plugintest.Options{Host: plugins.HostOptions{Logger: log}})
	mustOpen(t, h, newControl(t).uri("crash", "key"))
	eventually(t, "the panic is logged", func() bool {
		return strings.Contains(out.String(), `level=ERROR msg="the plugin logged" plugin=lockwood-crash words="panic: no luck"`)
	})
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestByHand starts a plugin as a person might.
func TestByHand(t *testing.T) {
	binary := filepath.Join(plugintest.Install(t, "one"), "lockwood-one")
	cmd := exec.Command(binary)
	cmd.Args[0] = "lockwood-one"
	cmd.Env = []string{}
	out, err := cmd.CombinedOutput()
	if _, failed := errors.AsType[*exec.ExitError](err); !failed || !strings.Contains(string(out), "lockwood plugin pin lockwood-one") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestScript runs a plugin that is a script, which its interpreter has to find: the
// bytes that were pinned, whatever becomes of the file.
func TestScript(t *testing.T) {
	dir, target := t.TempDir(), filepath.Join(plugintest.Install(t, "memory"), "lockwood-memory")
	script := fmt.Sprintf("#!/bin/bash\nexec -a lockwood-memory %s\n", target)
	must(t, os.WriteFile(filepath.Join(dir, "lockwood-memory"), []byte(script), 0o700))
	h, err := plugins.NewHost(plugins.HostOptions{Dir: dir, LockFile: filepath.Join(t.TempDir(), "lock")})
	must(t, err)
	defer h.Close()
	_, err = h.Pin("memory", &plugins.PinOptions{Write: []string{controls(t)}})
	must(t, err)
	if _, err := mustOpen(t, h, newControl(t).uri("memory", "one")).Status(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestHostKilled kills a host with SIGKILL: its plugin is gone within 5 s, even one
// that does not look at its standard input.
func TestHostKilled(t *testing.T) {
	base := shortDir(t)
	cmd, lines := startTestHost(t, base, nil, "wait")
	pid, err := strconv.Atoi(<-lines)
	must(t, err)
	if !alive(pid) {
		t.Fatal("the plugin does not run")
	}
	must(t, syscall.Kill(pid, syscall.SIGSTOP)) // it cannot end by itself now
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	deadline := time.Now().Add(5 * time.Second)
	eventually(t, "the orphan ends", func() bool { return !alive(pid) })
	if time.Now().After(deadline) {
		t.Error("the plugin outlived its host by more than 5 s")
	}
}

// TestInterrupt sends Ctrl-C to all that belong to a terminal's foreground process
// group, as the terminal does: the plugin stays until its host is done with it.
func TestInterrupt(t *testing.T) {
	_, lines := startTestHost(t, shortDir(t), nil, "interrupt")
	<-lines
	if got := <-lines; got != "still answered" {
		t.Error(got)
	}
}

// TestParentIsOutOfReach has a plugin read its host's environment and memory while
// both run as the same ordinary user, and checks first that the attempt would
// succeed against a process that is not hardened.
func TestParentIsOutOfReach(t *testing.T) {
	base := shortDir(t)
	var as *syscall.Credential
	if os.Geteuid() == 0 {
		as = &syscall.Credential{Uid: 65534, Gid: 65534}
		must(t, os.Chmod(base, 0o755))
	}
	_, lines := startTestHost(t, base, as, "spied-on")
	for _, want := range []string{"before: environ read, mem read", "plugin: environ refused, mem refused"} {
		if got := <-lines; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// startTestHost runs this binary as a host, with a directory of its own, and
// returns the lines that it prints.
func startTestHost(t *testing.T, base string, as *syscall.Credential, mode string) (*exec.Cmd, <-chan string) {
	t.Helper()
	dir := filepath.Join(base, "plugins")
	must(t, os.Mkdir(dir, 0o755))
	installed := filepath.Join(plugintest.Install(t, "memory"), "lockwood-memory")
	binary := filepath.Join(dir, "lockwood-memory")
	must(t, os.Link(installed, binary))
	home := filepath.Join(base, "home")
	for _, dir := range []string{home, filepath.Join(home, "control")} {
		must(t, os.Mkdir(dir, 0o700))
		if as != nil {
			must(t, os.Chown(dir, int(as.Uid), int(as.Gid)))
		}
	}
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Args = []string{"testhost", mode, dir, home}
	cmd.Env = []string{"FOREST_AUTH_SECRET=FAKE-auth-secret"}
	cmd.Stderr = t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as, Setpgid: true}
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lines := make(chan string, 10)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	return cmd, lines
}

// runTestHost is what this binary does as a host: MODE PLUGINS HOME.
func runTestHost(args []string) int {
	mode, dir, home := args[0], args[1], args[2]
	ctx := context.Background()
	if mode == "spied-on" {
		out, err := (&exec.Cmd{Path: filepath.Join(dir, "lockwood-memory"), Args: []string{"testhost", "spy", dir, home}}).Output()
		fmt.Fprintf(os.Stdout, "before: %s%v\n", out, errText(err))
	}
	if mode == "spy" {
		path := filepath.Join(home, "control", "before")
		spyOnParent(path)
		b, _ := os.ReadFile(path)
		_, _ = os.Stdout.Write(b)
		return 0
	}
	control := filepath.Join(home, "control")
	h, err := plugins.NewHost(plugins.HostOptions{Dir: dir, LockFile: filepath.Join(home, "lock"), RuntimeDir: home})
	if err == nil {
		_, err = h.Pin("memory", &plugins.PinOptions{Write: []string{control}})
	}
	var uri core.KeyURI
	if err == nil {
		uri, err = core.ParseKeyURI("memory:///one?spy=1&dir=" + control)
	}
	var p core.KeyProvider
	if err == nil {
		p, err = h.Open(ctx, uri)
	}
	if err != nil {
		fmt.Fprintln(os.Stdout, "failed:", err)
		return 1
	}
	switch mode {
	case "spied-on":
		b, _ := os.ReadFile(filepath.Join(control, "spied"))
		fmt.Fprintf(os.Stdout, "plugin: %s\n", b)
	case "wait":
		b, _ := os.ReadFile(filepath.Join(control, "pids"))
		_, _ = os.Stdout.Write(b)
		select {}
	case "interrupt":
		interruptMyself(p, control)
	}
	_ = h.Close()
	return 0
}
