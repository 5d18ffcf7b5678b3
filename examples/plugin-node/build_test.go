package pluginnode_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// requireEnv is the variable that turns a skip for want of Node.js into a failure,
// and permits to install the plugin's libraries from an npm registry.
const requireEnv = "LOCKWOOD_TEST_REQUIRE_SERVERS"

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
// cannot be, unless requireEnv says that it has to be.
func buildPlugin(t *testing.T) string {
	t.Helper()
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			skip(t, tool+" is not installed (scripts/install-servers installs it)")
		}
	}
	libraries := install(t)
	built.once.Do(func() { build(t, libraries) })
	if built.file == "" {
		t.Fatal("the plugin is not built; see the first test")
	}
	return built.file
}

func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv(requireEnv) == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
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

// install returns the directory with the plugin's libraries. It is kept in the
// user's cache directory, under a hash of what decides its content.
func install(t *testing.T) string {
	t.Helper()
	inputs := []string{"package.json", "package-lock.json", ".npmrc"}
	h := sha256.New()
	for _, name := range inputs {
		b, err := os.ReadFile(name)
		must(t, err)
		h.Write(b)
	}
	cache, err := os.UserCacheDir()
	must(t, err)
	cache = filepath.Join(cache, "lockwood-test")
	kept := filepath.Join(cache, "plugin-node-"+hex.EncodeToString(h.Sum(nil)[:8]))
	libraries := filepath.Join(kept, "node_modules")
	if _, err := os.Stat(libraries); err == nil {
		return libraries
	}
	if os.Getenv(requireEnv) != "1" {
		t.Skip("the plugin's libraries are not installed (go test with " + requireEnv + "=1 installs them once, from an npm registry)")
	}
	// Two test processes may install at once: each under a name of its own first.
	must(t, os.MkdirAll(cache, 0o700))
	made, err := os.MkdirTemp(cache, "plugin-node-*.new") //nolint:usetesting // it is renamed, which does not cross file systems
	must(t, err)
	defer func() { _ = os.RemoveAll(made) }()
	copyFiles(t, made, inputs...)
	run(t, made, "npm", "ci", "--silent")
	if err := os.Rename(made, kept); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	return libraries
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
