package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/lockwood-kms/lockwood/internal/awstest"
	"github.com/lockwood-kms/lockwood/internal/buildtest"
	"github.com/lockwood-kms/lockwood/internal/gcptest"
	"github.com/lockwood-kms/lockwood/internal/vaulttest"
)

// pluginBuild is the plugins, built once for all tests of the process.
var pluginBuild struct {
	once sync.Once
	dir  string
	err  error
	env  []string
}

// pluginsEnv builds the plugins as an operator gets them, pins them, and returns the
// variables that say where they are. They are the real programs: a test double
// would link no SDK.
func pluginsEnv(t *testing.T) []string {
	t.Helper()
	b := &pluginBuild
	b.once.Do(func() {
		if b.dir, b.err = os.MkdirTemp("", "lockwood-plugins"); b.err != nil { //nolint:usetesting // it outlives the test
			return
		}
		if b.err = os.Mkdir(filepath.Join(b.dir, "plugins"), 0o755); b.err == nil {
			b.err = buildtest.Plugins("../..", filepath.Join(b.dir, "plugins"))
		}
		files, _ := filepath.Glob(filepath.Join(b.dir, "plugins", "lockwood-*"))
		if b.err != nil || len(files) == 0 {
			return
		}
		b.env = []string{"FOREST_EXECUTOR_PLUGIN_DIR=" + filepath.Join(b.dir, "plugins"), "FOREST_EXECUTOR_PLUGIN_LOCK=" + filepath.Join(b.dir, "plugins.lock")}
		if r := do(t, b.env, append([]string{"plugin", "pin"}, files...)...); r.code != exitOK {
			b.err = fmt.Errorf("plugin pin: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
		}
	})
	if b.err != nil || b.env == nil {
		t.Fatalf("building the plugins: %v", b.err)
	}
	return slices.Clone(b.env)
}

// awsKey is a key in an AWS KMS for tests, and the credentials for it.
func awsKey(t *testing.T) (server *awstest.Server, key *awstest.Key, uri string, env []string) {
	t.Helper()
	server = awstest.NewServer()
	t.Cleanup(server.Close)
	key = server.CreateKey("forest")
	key.Alias("forest")
	return server, key, "awskms:///alias/forest?region=" + awstest.Region + "&endpoint=" + server.URL,
		[]string{"AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=made-up-secret-of-the-tests", "AWS_EC2_METADATA_DISABLED=true"}
}

// vaultKey is a transit key in a real OpenBao, or false where it is not built and
// may not be.
func vaultKey(t *testing.T) (uri string, ok bool) {
	t.Helper()
	require := os.Getenv(vaulttest.RequireEnv) != ""
	s, stop, err := vaulttest.Start(t.Context(), "../..", require)
	if errors.Is(err, vaulttest.ErrNotBuilt) {
		t.Logf("without Vault: %v", err)
		return "", false
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	if _, err := s.Write(t.Context(), "sys/mounts/transit", map[string]any{"type": "transit"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(t.Context(), "transit/keys/forest", map[string]any{}); err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(s.RootToken), 0o600); err != nil {
		t.Fatal(err)
	}
	return "vault://" + strings.TrimPrefix(s.URL, "http://") + "/transit/keys/forest?tls=off&auth=token&token_file=" + token, true
}

// gcpKey is a key in a Cloud KMS for tests.
func gcpKey(t *testing.T) (*gcptest.Server, string) {
	t.Helper()
	s, err := gcptest.NewServer(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, "gcpkms:///" + s.CreateKey("forest", nil).Name() + "?insecure=true&endpoint=" + s.Addr
}

// The program that holds the credentials links no SDK of a cloud.
func TestTheProgramLinksNoSDK(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := string(out)
	if !strings.Contains(deps, "github.com/hashicorp/go-plugin") {
		t.Fatal("the list of dependencies lacks what is known to be there")
	}
	for dep := range strings.Lines(deps) {
		for _, sdk := range []string{"github.com/aws/", "cloud.google.com/", "google.golang.org/api", "github.com/hashicorp/vault", "github.com/openbao/"} {
			if strings.HasPrefix(dep, sdk) {
				t.Errorf("it depends on %s", strings.TrimSpace(dep))
			}
		}
	}
}

func TestPluginListShowsWhatMayRun(t *testing.T) {
	t.Parallel()
	env := pluginsEnv(t)
	r := do(t, env, "plugin", "list", "--json")
	var entries []pluginEntry
	r.json(t, &entries)
	if len(entries) == 0 {
		t.Fatal("no plugin is listed")
	}
	for _, e := range entries {
		if !e.Trusted || e.Protocol != 1 || len(e.SHA256) != 64 || e.Problem != "" {
			t.Errorf("%+v", e)
		}
		for _, name := range e.Env {
			if strings.HasPrefix(name, "FOREST_") || strings.HasPrefix(name, "DATABASE_") {
				t.Errorf("%s may see %s", e.Scheme, name)
			}
		}
	}
}

func TestPluginCheckFindsNothingOrWhatIsMissing(t *testing.T) {
	t.Parallel()
	server, _, uri, aws := awsKey(t)
	env := append(pluginsEnv(t), aws...)
	r := do(t, env, "plugin", "check", uri)
	if r.code != exitOK || !strings.Contains(r.stdout, "unwrap: p50") || strings.Contains(r.stdout, "fail ") {
		t.Fatalf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	restore := server.Revoke("Encrypt")
	r = do(t, env, "plugin", "check", uri)
	if r.code != exitFound || !strings.Contains(r.stdout, "kms:Encrypt") {
		t.Errorf("without the right to wrap: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	restore()
	if r = do(t, env, "plugin", "check", "awskms:///alias/forest?regoin=eu-west-3"); r.code != exitUsage || !strings.Contains(r.stderr, "regoin") {
		t.Errorf("a misspelt option: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

func TestAPluginThatIsNotPinnedEndsTheStart(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	_, _, uri, aws := awsKey(t)
	env := append(pluginsEnv(t), aws...)
	dir := env[0]
	for name, test := range map[string]struct {
		env  []string
		want string
	}{
		"no lock file": {append(aws, dir, "FOREST_EXECUTOR_PLUGIN_LOCK="+filepath.Join(t.TempDir(), "none"), "FOREST_EXECUTOR_KEY_PROVIDER="+uri), "lockwood plugin pin"},
		"no plugin":    {append(env, "FOREST_EXECUTOR_KEY_PROVIDER=myhsm://key"), "myhsm"},
		"wrong option": {append(env, "FOREST_EXECUTOR_KEY_PROVIDER="+uri+"&colour=blue"), "colour"},
		"no key URI":   {append(env, "FOREST_EXECUTOR_PREVIOUS_KEY_PROVIDERS=alias/forest"), "FOREST_EXECUTOR_PREVIOUS_KEY_PROVIDERS"},
	} {
		r := do(t, d.with(test.env...), "serve")
		if r.code != exitUsage || !strings.Contains(r.stderr, test.want) {
			t.Errorf("%s: exit code %d, want %d and %q\n%s", name, r.code, exitUsage, test.want, r.stderr)
		}
	}
}

func TestPluginConformanceTellsAGoodPluginFromOneThatIsNone(t *testing.T) {
	t.Parallel()
	server, _, uri, aws := awsKey(t)
	server.CreateKey("other").Alias("other")
	env := append(pluginsEnv(t), aws...)
	binary := filepath.Join(pluginBuild.dir, "plugins", "lockwood-awskms")
	r := do(t, env, "plugin", "conformance", binary, "--uri", uri, "--foreign", strings.Replace(uri, "alias/forest", "alias/other", 1), "--json")
	var findings []finding
	r.json(t, &findings)
	passed := 0
	for _, f := range findings {
		switch f.Verdict {
		case verdictOK:
			passed++
		case verdictFail:
			t.Errorf("%+v", f)
		}
	}
	if r.code != exitOK || passed < 20 {
		t.Errorf("exit code %d, %d checks passed", r.code, passed)
	}
	if r := do(t, env, "plugin", "conformance", "/bin/true", "--uri", uri); r.code != exitFound || !strings.Contains(r.stdout, "fail") {
		t.Errorf("a program that is no plugin: exit code %d\n%s", r.code, r.stdout)
	}
}
