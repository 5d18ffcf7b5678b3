package isolation_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/lockwood-kms/lockwood/plugins/isolation"
)

// users are who a host may be.
func users() map[string]int {
	if os.Geteuid() != 0 {
		return map[string]int{"this user": os.Geteuid()}
	}
	return map[string]int{"ordinary user": nobody, "root": 0}
}

// TestThief has a program try each way that it knows to the secrets of its host and
// of another process of the same user, and to what is not its own. It checks first
// that the ways lead there if nothing is done against them.
func TestThief(t *testing.T) {
	needsLandlock(t)
	for name, uid := range users() {
		for _, filter := range []string{"", "unit"} {
			t.Run(strings.TrimSpace(name+" "+filter), func(t *testing.T) {
				t.Parallel()
				h := newHouse(t, uid)
				victim := strconv.Itoa(h.victim(t))
				before := h.report(t, "unprotected", victim)
				for _, what := range []string{
					"host environ", "host mem", "host threads", "host signal", "victim environ", "victim mem", "victim descriptor", "data/key", "data/vault.db", "symbolic link", "another program", "write home", "relative",
				} {
					if before[what] != "got" {
						t.Errorf("unprotected, %s: %s", what, before[what])
					}
				}
				h = newHouse(t, uid)
				h.filter = filter
				after := h.report(t, "robbed", victim)
				if len(after) < 40 {
					t.Errorf("it tried %d ways only", len(after))
				}
				for _, what := range slices.Sorted(maps.Keys(after)) {
					if after[what] == "got" {
						t.Errorf("%s: got it", what)
					}
				}
			})
		}
	}
}

// report runs a host whose program steals, and returns what that came to.
func (h *house) report(t *testing.T, mode string, victim string) map[string]string {
	t.Helper()
	cmd := h.command(t, "host", mode, h.dir, victim)
	var out strings.Builder
	cmd.Stdout = &out
	must(t, cmd.Run())
	var found map[string]string
	must(t, json.Unmarshal([]byte(out.String()), &found))
	return found
}

// TestPermitted asserts that a program can do what a key provider needs.
func TestPermitted(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "hidden"), []byte("x"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "token"), []byte("x"), 0o600))
	must(t, os.Mkdir(filepath.Join(dir, "more"), 0o700))
	must(t, os.Mkdir(filepath.Join(dir, "own"), 0o700))
	script := `set -e
cd "` + dir + `"
cat token >/dev/null
ls / /etc "` + dir + `" >/dev/null
cat /etc/resolv.conf /etc/hosts >/dev/null
head -c 1 /dev/urandom >/dev/null
cat more/renewed >/dev/null
echo x >own/file; mv own/file own/other; rm own/other; mkdir own/dir
! cat hidden 2>/dev/null
! echo x 2>/dev/null >token
`
	must(t, os.WriteFile(filepath.Join(dir, "more/renewed"), []byte("x"), 0o600))
	p, err := isolation.Start(&isolation.Program{
		Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}, Files: []*os.File{nil, os.Stderr, os.Stderr},
		Hidden: []string{filepath.Join(dir, "hidden")}, Writable: []string{filepath.Join(dir, "own")},
	})
	must(t, err)
	<-p.Exited()
	if err := p.Err(); err != nil {
		t.Error(err)
	}
}

// TestLeftBehind has a program start another in a session of its own, and end: what
// it left behind ends with it.
func TestLeftBehind(t *testing.T) {
	for name, uid := range users() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, uid)
			_, lines := h.start(t, "left", strconv.Itoa(h.victim(t)))
			leftover := number(t, <-lines)
			if got := <-lines; got != "ended" {
				t.Fatal(got)
			}
			if _, err := os.Stat(fmt.Sprintf("/proc/%d", leftover)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("what the program left behind is still there: %v", err)
			}
		})
	}
}

// TestChildrenFromBefore has a shell start a process and become the host, as the
// entry point of a container may: that process is not the host's to end.
func TestChildrenFromBefore(t *testing.T) {
	h := newHouse(t, os.Geteuid())
	cmd := h.command(t, "host")
	cmd.Path = "/bin/bash"
	cmd.Args = []string{"bash", "-c", `sleep 1000 >/dev/null & echo $!; exec -a host "$@"`, "bash", h.binary, "left", h.dir, strconv.Itoa(h.victim(t))}
	_, lines := follow(t, cmd)
	before := number(t, <-lines)
	leftover := number(t, <-lines)
	if got := <-lines; got != "ended" {
		t.Fatal(got)
	}
	if !alive(before) || alive(leftover) {
		t.Errorf("alive are: the process from before %t, what was left behind %t", alive(before), alive(leftover))
	}
	_ = syscall.Kill(before, syscall.SIGKILL)
}

// TestLeftBehindByKill kills a host with SIGKILL while its program has started
// another in a session of its own. Where a namespace is permitted that one ends too;
// else it has nothing to steal: not from a command that comes later either.
func TestLeftBehindByKill(t *testing.T) {
	needsLandlock(t)
	for name, uid := range users() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, uid)
			victim := h.victim(t)
			host, lines := h.start(t, "killed", strconv.Itoa(victim))
			leftover := number(t, <-lines)
			t.Cleanup(func() { _ = syscall.Kill(-leftover, syscall.SIGKILL) })
			must(t, host.Process.Kill())
			_ = host.Wait()
			if uid == 0 {
				eventually(t, "what was left behind ends", func() bool { return !alive(leftover) })
				return
			}
			var text []byte
			eventually(t, "what was left behind has tried", func() (ok bool) {
				var err error
				text, err = os.ReadFile(h.path("scratch/report"))
				return err == nil
			})
			var found map[string]string
			must(t, json.Unmarshal(text, &found))
			for what, came := range found {
				if came == "got" {
					t.Errorf("%s: got it", what)
				}
			}
		})
	}
}

// start starts a host that goes on, and returns the lines that it prints.
func (h *house) start(t *testing.T, mode, victim string) (*exec.Cmd, <-chan string) {
	t.Helper()
	return follow(t, h.command(t, "host", mode, h.dir, victim))
}

// follow starts a host, and returns the lines that it prints.
func follow(t *testing.T, cmd *exec.Cmd) (*exec.Cmd, <-chan string) {
	t.Helper()
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

func number(t *testing.T, line string) int {
	t.Helper()
	n, err := strconv.Atoi(line)
	must(t, err)
	return n
}

// alive reports whether a process runs. An orphan that is dead stays a zombie where
// the first process of a container does not reap.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}

// TestManyPrograms starts more programs one after another than the layers that
// Landlock can put on one thread.
func TestManyPrograms(t *testing.T) {
	for range 20 {
		p, err := isolation.Start(&isolation.Program{Path: "/bin/true", Args: []string{"true"}, Files: []*os.File{nil, os.Stderr, os.Stderr}})
		must(t, err)
		<-p.Exited()
		must(t, p.Err())
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "file")) // this process is as free as before
	must(t, err)
	must(t, f.Close())
}

// TestFailures asserts what the end of a program, and a program that there is not, are.
func TestFailures(t *testing.T) {
	_, err := isolation.Start(&isolation.Program{Path: "/does/not/exist", Args: []string{"x"}})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a program that there is not: %v", err)
	}
	p, err := isolation.Start(&isolation.Program{Path: "/bin/sleep", Args: []string{"sleep", "1000"}, Files: []*os.File{nil, nil, os.Stderr}})
	must(t, err)
	p.Kill()
	<-p.Exited()
	if status, ok := errors.AsType[*exec.ExitError](p.Err()); !ok || status.ExitCode() != -1 {
		t.Errorf("a program that was killed: %v", p.Err())
	}
	p.Kill() // nobody else
}

// TestWithoutLandlock asserts that programs start where a filter of system calls
// refuses Landlock, and that this is told.
func TestWithoutLandlock(t *testing.T) {
	for name, uid := range users() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, uid)
			h.filter = "no-landlock"
			var facts isolation.Facts
			out, err := h.command(t, "host", "facts", h.dir).Output()
			must(t, err)
			must(t, json.Unmarshal(out, &facts))
			if facts.Landlock != 0 || !facts.ReadsFiles() || !facts.Hardened || !facts.Adopts {
				t.Errorf("%+v", facts)
			}
			found := h.report(t, "robbed", strconv.Itoa(h.victim(t)))
			for _, what := range []string{"host environ", "host mem", "host threads", "rights"} { // what does not need it
				if found[what] == "got" || found[what] == "" {
					t.Errorf("%s: %q", what, found[what])
				}
			}
			if found["data/key"] != "got" {
				t.Errorf("the key file: %s; then say that it is safe", found["data/key"])
			}
		})
	}
}

// TestExamine asserts that the facts are those of this kernel.
func TestExamine(t *testing.T) {
	f := isolation.Examine()
	if f.System != "linux" || f.Adopts || f.Namespace != (os.Geteuid() == 0) {
		t.Errorf("%+v", f)
	}
	for landlock, want := range map[int][3]bool{0: {true, true, true}, 5: {false, true, true}, 6: {false, false, true}, 9: {false, false, false}} {
		f := isolation.Facts{Landlock: landlock}
		if got := [3]bool{f.ReadsFiles(), f.Signals(), f.Connects()}; got != want {
			t.Errorf("Landlock %d: %v, want %v", landlock, got, want)
		}
	}
}

// TestNoCoreDump asserts that a hardened process leaves no core file, whatever the
// limit is, and that one that is not does.
func TestNoCoreDump(t *testing.T) {
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	must(t, err)
	for _, hardened := range []bool{false, true} {
		dir := t.TempDir()
		self, err := os.Executable()
		must(t, err)
		script := `ulimit -c unlimited && exec -a crasher "$0" "$@"`
		args := []string{"-c", script, self}
		if hardened {
			args = append(args, "hardened")
		}
		cmd := exec.CommandContext(t.Context(), "bash", args...)
		cmd.Dir, cmd.Env = dir, []string{"GOTRACEBACK=crash"}
		if err := cmd.Run(); err == nil {
			t.Fatal("it did not crash")
		}
		cores, err := filepath.Glob(filepath.Join(dir, "core*"))
		must(t, err)
		inDir := strings.TrimSpace(string(pattern)) == "core"
		if want := !hardened && inDir; (len(cores) > 0) != want {
			t.Errorf("hardened %t: core files %v", hardened, cores)
		}
	}
}

func needsLandlock(t *testing.T) {
	t.Helper()
	if isolation.Examine().Landlock == 0 {
		t.Skip("this kernel has no Landlock")
	}
}
