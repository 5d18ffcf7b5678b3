// Package npmtest installs what tests need from an npm registry. It is kept in the
// user's cache directory, under a hash of what decides its content, so that it is
// installed once on a machine; a lock file pins every byte, and nothing that is installed
// runs while it is installed. Without Node.js a test is skipped, unless servers are required.
package npmtest

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

// RequireEnv is the variable that turns a skip into a failure, and permits to install from a
// registry, if it is 1.
const RequireEnv = "LOCKWOOD_TEST_REQUIRE_SERVERS"

// MayInstall reports whether a test may install what it needs from an npm registry.
func MayInstall() bool { return os.Getenv(RequireEnv) == "1" }

// Install returns the directory in which the packages of the directory sources are, with
// copies of the named files beside them. sources has a package.json, a package-lock.json and
// an .npmrc.
func Install(tb testing.TB, sources string, files ...string) string {
	tb.Helper()
	sources, err := filepath.Abs(sources) // its last element is in the name of what is kept
	must(tb, err)
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			skip(tb, tool+" is not installed (scripts/install-servers installs it)")
		}
	}
	hash, texts := sha256.New(), make(map[string][]byte)
	for _, name := range append([]string{"package.json", "package-lock.json", ".npmrc"}, files...) {
		text, err := os.ReadFile(filepath.Join(sources, name))
		must(tb, err)
		hash.Write(text)
		texts[name] = text
	}
	cache, err := os.UserCacheDir()
	must(tb, err)
	cache = filepath.Join(cache, "lockwood-test")
	kept := filepath.Join(cache, filepath.Base(sources)+"-"+hex.EncodeToString(hash.Sum(nil)[:8]))
	if _, err := os.Stat(kept); err == nil {
		return kept
	}
	if !MayInstall() {
		tb.Skip(filepath.Base(sources) + " is not installed (go test with " + RequireEnv + "=1 installs it once, from an npm registry)")
	}
	// Two test processes may install at once: each under a name of its own first.
	must(tb, os.MkdirAll(cache, 0o700))
	made, err := os.MkdirTemp(cache, filepath.Base(sources)+"-*.new") //nolint:usetesting // it is renamed, which does not cross file systems
	must(tb, err)
	defer func() { _ = os.RemoveAll(made) }()
	for name, text := range texts {
		must(tb, os.WriteFile(filepath.Join(made, name), text, 0o600))
	}
	cmd := exec.CommandContext(tb.Context(), "npm", "ci", "--silent")
	cmd.Dir = made
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("npm ci: %v\n%s", err, out)
	}
	if err := os.Rename(made, kept); err != nil && !errors.Is(err, fs.ErrExist) {
		tb.Fatal(err)
	}
	return kept
}

func skip(tb testing.TB, why string) {
	tb.Helper()
	if MayInstall() {
		tb.Fatal(why)
	}
	tb.Skip(why)
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
