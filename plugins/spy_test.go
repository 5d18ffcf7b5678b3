package plugins_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/lockwood-kms/lockwood/core"
)

// spyOnParent tries to read the environment and the memory of the parent process,
// and writes down how that went.
func spyOnParent(path string) {
	parent := os.Getppid()
	environ := attempt(func() error {
		_, err := os.ReadFile(proc(parent, "environ"))
		return err
	})
	memory := attempt(func() error { return readMemory(parent) })
	_ = os.WriteFile(path, []byte(fmt.Sprintf("environ %s, mem %s", environ, memory)), 0o600)
}

func attempt(f func() error) string {
	err := f()
	switch {
	case err == nil:
		return "read"
	case errors.Is(err, fs.ErrPermission):
		return "refused"
	}
	return "failed: " + err.Error()
}

// readMemory reads a byte of the first mapping of a process.
func readMemory(pid int) error {
	maps, err := os.ReadFile(proc(pid, "maps"))
	if err != nil {
		return err
	}
	start, _, _ := strings.Cut(string(maps), "-")
	at, err := strconv.ParseInt(start, 16, 64)
	if err != nil {
		return err
	}
	mem, err := os.Open(proc(pid, "mem"))
	if err != nil {
		return err
	}
	defer mem.Close()
	_, err = mem.ReadAt(make([]byte, 1), at)
	return err
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// interruptMyself sends SIGINT to the process group of this process, and to the
// plugin itself, and prints whether the plugin still answers from the same process.
func interruptMyself(p core.KeyProvider, control string) {
	signal.Ignore(os.Interrupt)
	pids, _ := os.ReadFile(filepath.Join(control, "pids"))
	fmt.Fprint(os.Stdout, string(pids))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(pids)))
	_ = syscall.Kill(0, syscall.SIGINT)
	_ = syscall.Kill(pid, syscall.SIGINT)
	for range 100 {
		if _, err := p.Status(context.Background()); err != nil {
			fmt.Fprintln(os.Stdout, "not answered:", err)
			return
		}
	}
	if again, _ := os.ReadFile(filepath.Join(control, "pids")); string(again) != string(pids) {
		fmt.Fprintln(os.Stdout, "the plugin was replaced")
		return
	}
	fmt.Fprintln(os.Stdout, "still answered")
}
