package lockwoodtest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// requireEnv is the variable that turns a skip for want of Node.js into a failure, and
// permits to install what the tests need from an npm registry.
const requireEnv = "LOCKWOOD_TEST_REQUIRE_SERVERS"

// MayInstall reports whether a test may install what it needs from an npm registry.
func MayInstall() bool { return os.Getenv(requireEnv) == "1" }

// Node returns a directory with a copy of the client for Node.js, of the module in root,
// and in node_modules what its tests need: the work tree stays as it is. The test is
// skipped where that cannot be, unless requireEnv says that it has to be.
func Node(tb testing.TB, root string) string {
	tb.Helper()
	for _, tool := range []string{"node", "npm", "npx"} {
		if _, err := exec.LookPath(tool); err != nil {
			skip(tb, tool+" is not installed (scripts/install-servers installs it)")
		}
	}
	client := filepath.Join(root, "clients", "node")
	libraries := install(tb, client)
	dir := tb.TempDir()
	for _, name := range []string{"src", "test", "types"} {
		must(tb, os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(client, name))))
	}
	copyFiles(tb, client, dir, "package.json", "tsconfig.json", "tsconfig.check.json")
	must(tb, os.Symlink(libraries, filepath.Join(dir, "node_modules")))
	return dir
}

func skip(tb testing.TB, why string) {
	tb.Helper()
	if MayInstall() {
		tb.Fatal(why)
	}
	tb.Skip(why)
}

// install returns the directory with the libraries of the client's tests. It is kept in
// the user's cache directory, under a hash of what decides its content.
func install(tb testing.TB, client string) string {
	tb.Helper()
	inputs := []string{"package.json", "package-lock.json", ".npmrc"}
	h := sha256.New()
	for _, name := range inputs {
		b, err := os.ReadFile(filepath.Join(client, name))
		must(tb, err)
		h.Write(b)
	}
	cache, err := os.UserCacheDir()
	must(tb, err)
	cache = filepath.Join(cache, "lockwood-test")
	kept := filepath.Join(cache, "client-node-"+hex.EncodeToString(h.Sum(nil)[:8]))
	libraries := filepath.Join(kept, "node_modules")
	if _, err := os.Stat(libraries); err == nil {
		return libraries
	}
	if !MayInstall() {
		tb.Skip("what the tests need is not installed (go test with " + requireEnv + "=1 installs it once, from an npm registry)")
	}
	// Two test processes may install at once: each under a name of its own first.
	must(tb, os.MkdirAll(cache, 0o700))
	made, err := os.MkdirTemp(cache, "client-node-*.new") //nolint:usetesting // it is renamed, which does not cross file systems
	must(tb, err)
	defer func() { _ = os.RemoveAll(made) }()
	copyFiles(tb, client, made, inputs...)
	cmd := exec.CommandContext(tb.Context(), "npm", "ci", "--silent")
	cmd.Dir = made
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("npm ci: %v\n%s", err, out)
	}
	if err := os.Rename(made, kept); err != nil && !errors.Is(err, fs.ErrExist) {
		tb.Fatal(err)
	}
	return libraries
}

func copyFiles(tb testing.TB, from, to string, names ...string) {
	tb.Helper()
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(from, name))
		must(tb, err)
		must(tb, os.WriteFile(filepath.Join(to, name), b, 0o600))
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
