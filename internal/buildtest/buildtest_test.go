package buildtest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Tests that want a server at the same time, on a machine where it is not built,
// all get it, and an older one is not taken for it.
func TestManyWantItAtOnce(t *testing.T) {
	built, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOCACHE", strings.TrimSpace(string(built))) // the standard library need not be built anew
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := t.TempDir()
	sources := []string{"main.go", "go.mod"}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("main.go", "package main\n\nfunc main() {}\n")
	write("go.mod", "module server\n\ngo 1.26\n")
	if _, err := Program(t.Context(), "server", dir, sources, false); !errors.Is(err, ErrNotBuilt) {
		t.Errorf("before it is built: %v", err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			program, err := Program(t.Context(), "server", dir, sources, true)
			if err != nil {
				t.Error(err)
			} else if _, err := os.Stat(program); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	write("main.go", "package main\n\nfunc main() { println() }\n")
	if _, err := Program(t.Context(), "server", dir, sources, false); !errors.Is(err, ErrNotBuilt) {
		t.Errorf("of other sources: %v", err)
	}
}
