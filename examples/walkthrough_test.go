// Package examples_test runs what the documents say about the examples. It exists because
// steps that nobody follows are soon wrong.
package examples_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core/providertest"
	"github.com/lockwood-kms/lockwood/internal/buildtest"
)

// TestWalkthrough runs the commands under "Writing one in Go" of docs/plugins.md as they
// are written, in an empty folder.
func TestWalkthrough(t *testing.T) {
	t.Parallel() // most of the time is the building of programs
	document, err := os.ReadFile("../docs/plugins.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(document), "## Writing one in Go\n")
	_, section, _ = strings.Cut(section, "```sh\n")
	commands, _, found := strings.Cut(section, "```")
	if !found {
		t.Fatal("there are no commands")
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := buildtest.Lockwood(root, bin); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", commands)
	cmd.Dir = t.TempDir()
	// The modules are those of Lockwood, whose checksums it has; nobody is asked for them.
	cmd.Env = append(os.Environ(), "LOCKWOOD="+root, "PATH="+bin+":"+os.Getenv("PATH"), "GONOSUMDB=*")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, check := range providertest.Checks() {
		if !strings.Contains(string(out), " "+check.Name+": ") {
			t.Errorf("nothing is said of the check %s", check.Name)
		}
	}
	if n := strings.Count(string(out), "\nskip "); n != 10 { // those that want a fault
		t.Errorf("%d checks are skipped:\n%s", n, out)
	}
}
