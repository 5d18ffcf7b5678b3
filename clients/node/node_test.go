// Package clientnode_test runs the tests of the client for Node.js against the built
// program, with each version of Node.js that the client promises to work with. It exists
// so that the client is tested wherever the rest is, and against the Lockwood that it is
// delivered with.
package clientnode_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/internal/lockwoodtest"
)

// requireEnv is the variable that turns a skip for want of Node.js into a failure, and
// permits to install what the tests need from an npm registry.
const requireEnv = "LOCKWOOD_TEST_REQUIRE_SERVERS"

// versions of Node.js that the client is for.
var versions = []string{"20", "22"}

func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv(requireEnv) == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// copied returns a copy of the client with what its tests need: the work tree stays as it
// is. The test is skipped where that cannot be, unless requireEnv says that it has to be.
func copied(t *testing.T) string {
	t.Helper()
	for _, tool := range []string{"node", "npm", "npx"} {
		if _, err := exec.LookPath(tool); err != nil {
			skip(t, tool+" is not installed (scripts/install-servers installs it)")
		}
	}
	libraries := install(t)
	dir := t.TempDir()
	for _, name := range []string{"src", "test", "types"} {
		must(t, os.CopyFS(filepath.Join(dir, name), os.DirFS(name)))
	}
	copyFiles(t, dir, "package.json", "tsconfig.json", "tsconfig.check.json")
	must(t, os.Symlink(libraries, filepath.Join(dir, "node_modules")))
	return dir
}

// install returns the directory with the libraries of the tests. It is kept in the user's
// cache directory, under a hash of what decides its content.
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
	kept := filepath.Join(cache, "client-node-"+hex.EncodeToString(h.Sum(nil)[:8]))
	libraries := filepath.Join(kept, "node_modules")
	if _, err := os.Stat(libraries); err == nil {
		return libraries
	}
	if os.Getenv(requireEnv) != "1" {
		t.Skip("what the tests need is not installed (go test with " + requireEnv + "=1 installs it once, from an npm registry)")
	}
	// Two test processes may install at once: each under a name of its own first.
	must(t, os.MkdirAll(cache, 0o700))
	made, err := os.MkdirTemp(cache, "client-node-*.new") //nolint:usetesting // it is renamed, which does not cross file systems
	must(t, err)
	defer func() { _ = os.RemoveAll(made) }()
	copyFiles(t, made, inputs...)
	run(t, made, nil, "npm", "ci", "--silent")
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

// run runs a command in a directory, with env besides, and returns what it wrote.
func run(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestOnEachVersion runs the tests of the client with each version of Node.js.
func TestOnEachVersion(t *testing.T) {
	dir := copied(t)
	installed := strings.TrimPrefix(run(t, dir, nil, "node", "--version"), "v")
	i := lockwoodtest.Start(t, "../..")
	contract, err := filepath.Abs("../../docs/openapi.yaml")
	must(t, err)
	env := []string{
		"LOCKWOOD_URL=" + i.URL, "LOCKWOOD_AUTH_SECRET=" + lockwoodtest.AuthSecret,
		"LOCKWOOD_TOKEN_ENDPOINT=" + i.TokenEndpoint, "LOCKWOOD_OPENAPI=" + contract,
	}
	for _, version := range versions {
		t.Run("node "+version, func(t *testing.T) {
			command := []string{"npm", "test", "--silent"}
			if !strings.HasPrefix(installed, version+".") {
				if os.Getenv(requireEnv) != "1" {
					t.Skip("Node.js " + installed + " is installed (go test with " + requireEnv + "=1 fetches others from an npm registry)")
				}
				command = []string{"npx", "--yes", "--package=node@" + version, "--", "sh", "-ec", "node --version; npm test --silent"}
			}
			out := run(t, dir, env, command[0], command[1:]...)
			if !regexp.MustCompile(`(?m) pass [1-9]\d*$`).MatchString(out) || !regexp.MustCompile(`(?m) fail 0$`).MatchString(out) {
				t.Errorf("the output is no result of tests:\n%s", out)
			}
			t.Log(out)
			if command[0] == "npx" && !strings.Contains(out, "v"+version+".") {
				t.Errorf("it ran with another version:\n%s", out)
			}
		})
	}
}

// TestTypes holds that the declarations are those of the sources, and that a program in
// TypeScript and the MCP client's own types agree with them.
func TestTypes(t *testing.T) {
	dir := copied(t)
	must(t, os.RemoveAll(filepath.Join(dir, "types")))
	run(t, dir, nil, "npm", "run", "--silent", "types")
	run(t, dir, nil, "npm", "run", "--silent", "check")
	made, err := filepath.Glob(filepath.Join(dir, "types", "*"))
	must(t, err)
	kept, err := filepath.Glob("types/*")
	must(t, err)
	if len(made) != len(kept) || len(made) == 0 {
		t.Fatalf("%d declarations are made of the sources, and %d are kept (run: npm run types)", len(made), len(kept))
	}
	for _, file := range made {
		want, err := os.ReadFile(file)
		must(t, err)
		if got, err := os.ReadFile(filepath.Join("types", filepath.Base(file))); err != nil || string(got) != string(want) {
			t.Errorf("types/%s is not made of the sources as they are (run: npm run types)", filepath.Base(file))
		}
	}
}

// TestNoDependencies holds that the client brings nothing along.
func TestNoDependencies(t *testing.T) {
	text, err := os.ReadFile("package.json")
	must(t, err)
	for _, kind := range []string{`"dependencies"`, `"peerDependencies"`, `"optionalDependencies"`} {
		if strings.Contains(string(text), kind) {
			t.Errorf("package.json has %s", kind)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
