package importrules

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/lockwood-kms/lockwood"

// rules are imports, each with the directories that may not have it, and those
// that may.
var rules = []struct {
	imports string
	refused []string
	allowed []string
}{
	{"log", []string{"core", "httpapi", "cmd/lockwood", "store/postgres"}, nil},
	{"math/rand", []string{"core/keyring", "fleet"}, nil},
	{"math/rand/v2", nil, []string{"core/keyring", "fleet"}},
	{"testing", []string{"core/providertest", "core/envelope", "cmd/lockwood"}, []string{"store/storetest"}},
	{"golang.org/x/crypto/hkdf", []string{"core/envelope", "providers/envkey", "httpapi"}, nil},
	{"golang.org/x/sync/singleflight", []string{"core", "core/envelope", "core/providertest", "core/keyring", "core/keyring/internal/cache", "core/keyring/internal/reconcile", "fleet"}, []string{"core/keyring/internal/flight"}},
	{"github.com/cenkalti/backoff/v5", []string{"core", "core/envelope", "core/keyring", "credential"}, []string{"core/keyring/internal/flight"}},
	{"github.com/spf13/cobra", []string{"core", "core/envelope", "core/keyring", "credential", "fleet"}, []string{"cmd/lockwood"}},
	{"filippo.io/age", []string{"core", "core/envelope", "core/keyring", "providers/envkey", "plugins", "store/sqlite", "cmd/lockwood"}, []string{"providers/age"}},
	{"github.com/riverqueue/river", []string{"core/keyring", "fleet", "rotation", "httpapi", "cmd/lockwood"}, []string{"rotation/queue"}},
	{module + "/core", nil, []string{"core/envelope", "core/keyring", "core/providertest", "providers/envkey", "providers/age", "credential", "fleet", "store/sqlite", "httpapi", "config"}},
	{module + "/core/envelope", []string{"core", "core/providertest", "fleet"}, []string{"core/keyring", "credential", "store/sqlite"}},
	{module + "/core/keyring", []string{"core", "core/envelope", "providers/envkey", "config"}, []string{"credential", "store/postgres", "httpapi"}},
	// Within the ring calls run one way.
	{module + "/core/keyring/internal/reconcile", []string{
		"core/keyring/internal/loader", "core/keyring/internal/guard", "core/keyring/internal/cache", "core/keyring/internal/witness", "core/keyring/internal/flight",
	}, []string{"core/keyring"}},
	{module + "/core/keyring/internal/loader", []string{
		"core/keyring/internal/guard", "core/keyring/internal/cache", "core/keyring/internal/witness", "core/keyring/internal/kek",
	}, []string{"core/keyring", "core/keyring/internal/reconcile"}},
	{module + "/core/keyring/internal/guard", []string{
		"core/keyring/internal/loader", "core/keyring/internal/cache", "core/keyring/internal/witness", "core/keyring/internal/kek",
	}, []string{"core/keyring", "core/keyring/internal/reconcile"}},
	{module + "/core/keyring/internal/cache", []string{
		"core/keyring/internal/witness", "core/keyring/internal/kek", "core/keyring/internal/keystate", "core/keyring/internal/flight",
	}, []string{"core/keyring/internal/loader", "core/keyring/internal/guard", "core/keyring/internal/reconcile"}},
	{module + "/core/keyring/internal/witness", []string{"core/keyring/internal/cache", "core/keyring/internal/guard"}, []string{"core/keyring/internal/loader"}},
	{module + "/access", []string{"client"}, nil},
	{"golang.org/x/oauth2", []string{"core"}, []string{"client"}},
	{"github.com/getkin/kin-openapi", []string{"client", "httpapi"}, []string{"internal/openapitest"}},
	{module + "/credential", []string{"core", "core/keyring", "fleet", "config"}, []string{"store/postgres", "store/storetest", "httpapi"}},
	{module + "/credential/tokenendpoint", []string{"core", "store/sqlite"}, []string{"httpapi"}},
	{module + "/fleet", []string{"core/keyring", "credential"}, []string{"store/postgres", "httpapi"}},
	{module + "/access", []string{"core", "core/keyring", "credential", "fleet", "rotation", "access/grant", "access/protocol", "config"}, []string{"store/postgres", "store/sqlite", "httpapi"}},
	{module + "/access/grant", []string{"access/protocol", "store/sqlite", "credential", "httpapi"}, []string{"access"}},
	{module + "/access/egress", []string{"access", "access/protocol", "httpapi", "credential"}, []string{"access/grant", "access/servers", "access/tools"}},
	{module + "/access/servers", []string{"access", "access/grant", "access/protocol", "access/egress", "store/sqlite", "config"}, []string{"access/tools", "httpapi"}},
	{module + "/access/tools", []string{"access", "access/grant", "access/servers", "store/sqlite", "config"}, []string{"httpapi", "cmd/lockwood"}},
	{"github.com/modelcontextprotocol/go-sdk/mcp", []string{"access", "access/grant", "access/servers", "httpapi"}, []string{"access/tools"}},
	{module + "/rotation", []string{"core", "core/keyring", "credential", "fleet", "providers/envkey"}, []string{"rotation/queue", "store/postgres", "store/sqlite"}},
	{module + "/afresh", []string{"core/keyring", "credential", "fleet", "rotation", "httpapi"}, []string{"store/postgres", "cmd/lockwood"}},
	{module + "/rotation", []string{"afresh", "backup"}, []string{"relocation"}},
	{module + "/relocation", []string{"core/keyring", "credential", "fleet", "rotation", "afresh", "httpapi"}, []string{"store/postgres", "store/sqlite", "backup", "cmd/lockwood"}},
	{module + "/backup", []string{"core/keyring", "credential", "rotation", "relocation", "store/sqlite", "httpapi"}, []string{"cmd/lockwood"}},
	{module + "/store/sqlite", []string{"backup", "relocation"}, nil},
	{module + "/internal/pause", []string{"core", "core/envelope", "core/keyring/internal/flight", "credential", "fleet", "httpapi"}, []string{"core/keyring", "core/keyring/internal/reconcile", "rotation", "access", "relocation", "client", "store/postgres"}},
	{module + "/core", []string{"internal/pause"}, nil},
	{module + "/store/postgres", []string{"core/keyring", "credential", "fleet", "rotation", "httpapi", "providers/envkey", "config"}, []string{"cmd/lockwood"}},
	{module + "/providers/envkey", []string{"core", "core/keyring", "credential", "fleet", "store/postgres", "httpapi", "config"}, []string{"cmd/lockwood"}},
	{module + "/providers/awskms", []string{"cmd/lockwood", "plugins", "plugins/plugintest", "config"}, []string{"plugins/lockwood-awskms"}},
	{module + "/providers/vault", []string{"cmd/lockwood", "plugins"}, []string{"plugins/lockwood-vault"}},
	{module + "/providers/remote", []string{"core", "core/keyring", "core/providertest", "httpapi", "config", "plugins"}, []string{"providers/awskms", "providers/vault"}},
	{module + "/core/keyring", []string{"providers/remote"}, nil},
	{module + "/providers/age", []string{"core", "core/keyring", "credential", "store/postgres", "httpapi", "config"}, []string{"cmd/lockwood"}},
	{module + "/plugins", []string{"core", "core/keyring", "providers/awskms", "httpapi", "store/postgres"}, []string{"cmd/lockwood", "plugins/lockwood-awskms", "plugins/plugintest"}},
	{module + "/config", []string{"core", "store/sqlite", "httpapi"}, []string{"cmd/lockwood"}},
	{module + "/httpapi", []string{"core", "credential", "store/sqlite", "config"}, []string{"cmd/lockwood"}},
	{module + "/internal/wiring", []string{"core/keyring", "store/postgres", "httpapi", "rotation", "internal/drill"}, []string{"cmd/lockwood"}},
	{module + "/internal/drill", []string{"core/keyring", "httpapi", "internal/metrics"}, []string{"cmd/lockwood"}},
	{module + "/store/postgres", []string{"internal/drill", "internal/metrics"}, []string{"internal/wiring"}},
	{module + "/providers/awskms", []string{"internal/wiring"}, nil},
	{"github.com/spf13/cobra", []string{"internal/wiring", "internal/drill"}, nil},
	{module + "/cmd/lockwood/sub", []string{"core/keyring", "store/postgres", "httpapi", "providers/envkey"}, []string{"cmd/lockwood"}},
}

// TestRules lints a module that has the product's directories and, in each, one
// file for every import in question.
func TestRules(t *testing.T) {
	dir := skeleton(t)
	found := lint(t, dir)
	for _, r := range rules {
		for _, d := range r.refused {
			if !found[d][r.imports] {
				t.Errorf("%s may import %s", d, r.imports)
			}
		}
		for _, d := range r.allowed {
			if found[d][r.imports] {
				t.Errorf("%s may not import %s", d, r.imports)
			}
		}
	}
}

// skeleton writes the module that imports, and beside it everything that it
// imports, as empty packages, without which the linter would stop at the type
// checker. The product's packages are elsewhere too, so that none imports itself.
func skeleton(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "importers")
	modules := map[string]bool{}
	for i, r := range rules {
		for _, d := range slices.Concat(r.refused, r.allowed) {
			write(t, filepath.Join(dir, d, fmt.Sprintf("import%d.go", i)), fmt.Sprintf("package p\n\nimport _ %q\n", r.imports))
		}
		if strings.Contains(r.imports, ".") {
			modules[moduleOf(r.imports)] = true
			write(t, filepath.Join(root, r.imports, "package.go"), "package p\n")
		}
	}
	// Its path is one that the internal packages of the ring may be imported from.
	gomod := "module " + module + "/core/keyring/importers\n\ngo 1.26\n"
	for m := range modules {
		write(t, filepath.Join(root, m, "go.mod"), "module "+m+"\n")
		gomod += fmt.Sprintf("require %s %s\nreplace %s => ../%s\n", m, version(m), m, m)
	}
	write(t, filepath.Join(dir, "go.mod"), gomod)
	return dir
}

// moduleOf returns the product's module for its packages, and for any other
// import the import itself.
func moduleOf(path string) string {
	if strings.HasPrefix(path, module+"/") {
		return module
	}
	return path
}

// version is one that the module path agrees with.
func version(path string) string {
	if strings.HasSuffix(path, "/v5") {
		return "v5.0.0"
	}
	return "v0.0.0"
}

// lint returns the imports that were refused, by directory. The rules stand
// beside the module, as they do in the product, since they name directories.
func lint(t *testing.T, dir string) map[string]map[string]bool {
	t.Helper()
	config, err := os.ReadFile("../../.golangci.yaml")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, ".golangci.yaml"), string(config))
	cmd := exec.CommandContext(t.Context(), linter(t), "run",
		"--enable-only", "depguard", "--output.json.path", "stdout", "--show-stats=false", "--issues-exit-code", "0", "./...")
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("running the linter: %v\n%s", err, out)
	}
	return refusals(t, out)
}

func refusals(t *testing.T, report []byte) map[string]map[string]bool {
	t.Helper()
	var parsed struct {
		Issues []struct {
			Text string
			Pos  struct{ Filename string }
		}
	}
	if err := json.Unmarshal(report, &parsed); err != nil {
		t.Fatal(err)
	}
	found := make(map[string]map[string]bool)
	for _, issue := range parsed.Issues {
		if !strings.HasPrefix(issue.Text, "import '") {
			t.Fatalf("the linter found something else: %s", issue.Text)
		}
		d := filepath.Dir(issue.Pos.Filename)
		if found[d] == nil {
			found[d] = make(map[string]bool)
		}
		found[d][strings.Split(issue.Text, "'")[1]] = true
	}
	return found
}

// linter builds the linter, unless it is built, and returns its path.
func linter(t *testing.T) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "-C", "../lint", "tool", "-n", "golangci-lint")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("building the linter: %v", err)
	}
	return strings.TrimSpace(string(out))
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
