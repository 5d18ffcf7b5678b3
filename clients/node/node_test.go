// Package clientnode_test runs the tests of the client for Node.js against the built
// program, with each version of Node.js that the client promises to work with. It exists
// so that the client is tested wherever the rest is, and against the Lockwood that it is
// delivered with.
package clientnode_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/internal/lockwoodtest"
	"github.com/lockwood-kms/lockwood/internal/npmtest"
	"github.com/lockwood-kms/lockwood/internal/openapitest"
)

// versions of Node.js that the client is for.
var versions = []string{"20", "22"}

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
	dir := lockwoodtest.Node(t, "../..")
	installed := strings.TrimPrefix(run(t, dir, nil, "node", "--version"), "v")
	i := lockwoodtest.Start(t, "../..")
	contract, err := openapitest.Load("../../docs/openapi.yaml")
	must(t, err)
	env := []string{
		"LOCKWOOD_URL=" + i.URL, "LOCKWOOD_AUTH_SECRET=" + lockwoodtest.AuthSecret,
		"LOCKWOOD_TOKEN_ENDPOINT=" + i.TokenEndpoint, "LOCKWOOD_CODES=" + strings.Join(contract.Codes("deposit", "list", "disconnect", "accessToken"), " "),
	}
	for _, version := range versions {
		t.Run("node "+version, func(t *testing.T) {
			command := []string{"npm", "test", "--silent"}
			if !strings.HasPrefix(installed, version+".") {
				if !npmtest.MayInstall() {
					t.Skip("Node.js " + installed + " is installed (LOCKWOOD_TEST_REQUIRE_SERVERS=1 fetches others from an npm registry)")
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
	dir := lockwoodtest.Node(t, "../..")
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

// TestInstall installs the package as npm packs it, without any registry, and uses it.
func TestInstall(t *testing.T) {
	dir := lockwoodtest.Node(t, "../..")
	packed := strings.TrimSpace(run(t, dir, nil, "npm", "pack", "--silent"))
	program := t.TempDir()
	run(t, program, nil, "npm", "install", "--silent", "--offline", "--no-audit", "--no-fund", filepath.Join(dir, packed))
	use := `import * as lockwood from '@lockwood-kms/client'; console.log(Object.keys(lockwood).join(' '))`
	const exported = "ExecutorTokenService LockwoodAuthProvider LockwoodClient LockwoodError NeedsReauthError signUserToken\n"
	if out := run(t, program, nil, "node", "--input-type=module", "--eval", use); out != exported {
		t.Errorf("it exports %s", out)
	}
	installed := filepath.Join(program, "node_modules", "@lockwood-kms", "client")
	for name, there := range map[string]bool{"src/index.js": true, "types/index.d.ts": true, "test": false} {
		if _, err := os.Stat(filepath.Join(installed, name)); (err == nil) != there {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
