package isolation_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockwood-kms/lockwood/internal/seccomptest"
	"github.com/lockwood-kms/lockwood/plugins/isolation"
)

// TestMain makes this binary whatever its name says: a host, what it starts, and
// what that is after.
func TestMain(m *testing.M) {
	var err error
	switch os.Args[0] {
	case "host":
		err = beHost(os.Args[1:])
	case "thief":
		err = json.NewEncoder(os.Stdout).Encode(steal(os.Args[1:]))
	case "parent": // of one that is left behind
		err = leaveBehind(os.Args[1:])
	case "leftover":
		err = outlive(os.Args[1:])
	case "victim": // a process that did not harden itself
		_, err = io.Copy(io.Discard, os.Stdin)
	case "crasher":
		if len(os.Args) > 1 {
			err = isolation.Harden()
		}
		if err == nil {
			_ = syscall.Kill(os.Getpid(), syscall.SIGABRT)
			select {}
		}
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, os.Args[0]+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// soon has a process end at once under -race, too.
const soon = "GORACE=atexit_sleep_ms=0"

// nobody is an ordinary user.
const nobody = 65534

// filters are the system calls that are refused to a host.
var filters = map[string][]uint32{
	"unit":        seccomptest.Unit,
	"no-landlock": {unix.SYS_LANDLOCK_CREATE_RULESET},
}

// theSecret is in the environment and the files of the host and of the victim.
const theSecret = "FAKE-secret-of-the-host"

// house is where a host and its files are.
type house struct {
	dir    string // of all the rest
	binary string
	uid    int // who the host is
	filter string
}

// newHouse makes the files of a host that runs as uid.
func newHouse(t *testing.T, uid int) *house {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "lw") //nolint:usetesting // another user has to reach it
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	h := &house{dir: dir, binary: filepath.Join(dir, "program"), uid: uid}
	self, err := os.Executable()
	must(t, err)
	must(t, copyFile(self, h.binary))
	for name, mode := range map[string]os.FileMode{"data": 0o700, "home": 0o700, "scratch": 0o700} {
		must(t, os.Mkdir(filepath.Join(dir, name), mode))
		must(t, os.Chown(filepath.Join(dir, name), uid, uid))
	}
	for _, name := range []string{"data/key", "data/vault.db", "data/vault.db-wal", "home/other"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(theSecret), 0o600))
		must(t, os.Chown(filepath.Join(dir, name), uid, uid))
	}
	must(t, os.Chmod(dir, 0o755))
	return h
}

func copyFile(from, to string) error {
	if os.Link(from, to) == nil {
		return os.Chmod(to, 0o755)
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

func (h *house) path(name string) string { return filepath.Join(h.dir, name) }

// command is this binary under another name, as the user of the house.
func (h *house) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), h.binary)
	cmd.Args = args
	cmd.Env = []string{"FOREST_AUTH_SECRET=" + theSecret, "HOME=" + h.path("home"), "TEST_FILTER=" + h.filter, soon}
	cmd.Dir = h.path("data")
	cmd.Stderr = t.Output()
	key, err := os.Open(h.path("data/key"))
	must(t, err)
	t.Cleanup(func() { _ = key.Close() })
	cmd.ExtraFiles = []*os.File{key} // descriptor 3
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if h.uid != os.Geteuid() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(h.uid), Gid: uint32(h.uid)}
	}
	return cmd
}

// victim starts a process that has the secret in its environment and is not
// hardened, and returns its process ID.
func (h *house) victim(t *testing.T) int {
	t.Helper()
	cmd := h.command(t, "victim")
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	eventually(t, "the victim is executed", func() bool {
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
		return strings.HasPrefix(string(name), "victim")
	})
	return cmd.Process.Pid
}

// program is how a host starts this binary, isolated.
func program(dir string, out *os.File, args ...string) (*isolation.Process, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	return isolation.Start(&isolation.Program{
		Path: filepath.Join(dir, "program"), Args: args, Files: []*os.File{null, out, os.Stderr},
		Env: []string{"HOME=" + filepath.Join(dir, "home"), "TMPDIR=" + filepath.Join(dir, "scratch"), soon},
		Hidden: []string{
			filepath.Join(dir, "data/key"), "vault.db", "vault.db-wal", filepath.Join(dir, "data/later"),
		},
		Writable: []string{filepath.Join(dir, "scratch"), filepath.Join(dir, "missing")},
	})
}

// beHost hardens itself and does as it is told: MODE DIR ARGUMENTS.
func beHost(args []string) error {
	mode, dir := args[0], args[1]
	if filter := filters[os.Getenv("TEST_FILTER")]; filter != nil {
		if err := seccomptest.Refuse(filter); err != nil {
			return err
		}
	}
	rest := append([]string{fmt.Sprint(os.Getpid()), dir}, args[2:]...)
	if mode == "unprotected" { // what the attempts come to if nothing is done against them
		cmd := &exec.Cmd{
			Path: filepath.Join(dir, "program"), Args: append([]string{"thief"}, rest...), Stdout: os.Stdout, Stderr: os.Stderr,
			Env: []string{"HOME=" + filepath.Join(dir, "home"), "TMPDIR=" + filepath.Join(dir, "scratch"), soon},
		}
		return cmd.Run()
	}
	if err := isolation.Harden(); err != nil {
		return err
	}
	if err := isolation.AdoptOrphans(); err != nil {
		return err
	}
	switch mode {
	case "facts":
		return json.NewEncoder(os.Stdout).Encode(isolation.Examine())
	case "robbed":
		return runToEnd(dir, append([]string{"thief"}, rest...))
	case "left":
		if err := runToEnd(dir, append([]string{"parent"}, rest...)); err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, "ended")
	case "killed":
		if _, err := program(dir, os.Stdout, append([]string{"parent", "stay"}, rest...)...); err != nil {
			return err
		}
	}
	select {} // until it is killed
}

func runToEnd(dir string, args []string) error {
	p, err := program(dir, os.Stdout, args...)
	if err != nil {
		return err
	}
	<-p.Exited()
	return p.Err()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls until ok, or fails the test after a generous time.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("it did not happen: %s", what)
		}
		<-tick.C
	}
}
