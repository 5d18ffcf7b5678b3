package lockwoodtest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/lockwood-kms/lockwood/internal/npmtest"
)

// Node returns a directory with a copy of the client for Node.js, of the module in root,
// and in node_modules what its tests need: the work tree stays as it is. The test is
// skipped where that cannot be, unless npmtest.RequireEnv says that it has to be.
func Node(tb testing.TB, root string) string {
	tb.Helper()
	client := filepath.Join(root, "clients", "node")
	libraries := filepath.Join(npmtest.Install(tb, client), "node_modules")
	dir := tb.TempDir()
	for _, name := range []string{"src", "test", "types"} {
		must(tb, os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(client, name))))
	}
	copyFiles(tb, client, dir, "package.json", "tsconfig.json", "tsconfig.check.json")
	must(tb, os.Symlink(libraries, filepath.Join(dir, "node_modules")))
	return dir
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
