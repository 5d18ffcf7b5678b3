package pluginnode_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/lockwood-kms/lockwood/internal/npmtest"
)

// built is the plugin as the first test built it, for those after it.
var built struct {
	once sync.Once
	file string
	dir  string
}

// TestMain removes what was built.
func TestMain(m *testing.M) {
	status := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(status)
}

// buildPlugin returns the path of the plugin, built as the README says from a copy
// of the sources: the work tree stays as it is. The test is skipped where that
// cannot be, unless npmtest.RequireEnv says that it has to be.
func buildPlugin(t *testing.T) string {
	t.Helper()
	libraries := filepath.Join(npmtest.Install(t, "."), "node_modules")
	built.once.Do(func() { build(t, libraries) })
	if built.file == "" {
		t.Fatal("the plugin is not built; see the first test")
	}
	return built.file
}

func build(t *testing.T, libraries string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "lockwood-plugin-node-") //nolint:usetesting // it outlives this test
	must(t, err)
	built.dir = dir
	example := filepath.Join(dir, "examples", "plugin-node")
	must(t, os.MkdirAll(filepath.Join(dir, "plugins"), 0o700))
	must(t, os.CopyFS(filepath.Join(example, "src"), os.DirFS("src")))
	copyFiles(t, example, "package.json", "build.js")
	copyFiles(t, filepath.Join(dir, "plugins"), "../../plugins/keyprovider.proto")
	must(t, os.Symlink(libraries, filepath.Join(example, "node_modules")))
	run(t, example, "npm", "run", "--silent", "build")
	// A directory with nothing else: it is the plugin directory of the tests.
	must(t, os.Mkdir(filepath.Join(dir, "bin"), 0o700))
	file := filepath.Join(dir, "bin", file)
	must(t, os.Rename(filepath.Join(example, "dist", filepath.Base(file)), file))
	built.file = file
}

func copyFiles(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		b, err := os.ReadFile(name)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, filepath.Base(name)), b, 0o600))
	}
}

// run runs a command in a directory and returns what it wrote.
func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}
