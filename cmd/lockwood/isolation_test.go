package main

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/config"
	"github.com/lockwood-kms/lockwood/internal/wiring"
	"github.com/lockwood-kms/lockwood/plugins/isolation"
)

// TestNoCommandDumpsCore aborts commands that hold the key while they wait for a
// database that says nothing: none leaves a core file, whatever the limit is.
func TestNoCommandDumpsCore(t *testing.T) {
	for _, command := range []string{"serve", "key status", "key rotate", "credentials verify", "doctor", "credentials reseal --dry-run"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			silent, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer silent.Close()
			env := append(keysOf("postgres://u:p@"+silent.Addr().String()+"/d?sslmode=disable"),
				"GOTRACEBACK=crash", "HTTP_HOST=127.0.0.1", "HTTP_PORT=0", "ADMIN_ADDR=127.0.0.1:0")
			cmd := lockwood(t.Context(), t, env, strings.Fields(command)...)
			cmd.Args = append([]string{"sh", "-c", `ulimit -c unlimited && exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
			cmd.Path = "/bin/sh"
			var out output
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if err := silent.(*net.TCPListener).SetDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			conn, err := silent.Accept()
			_ = cmd.Process.Signal(syscall.SIGABRT)
			_ = cmd.Wait()
			if err != nil {
				t.Fatalf("it does not ask the database: %v\n%s", err, out.String())
			}
			_ = conn.Close()
			status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if !status.Signaled() || status.Signal() != syscall.SIGABRT || status.CoreDump() {
				t.Errorf("it ended with %v, core dumped: %t", cmd.ProcessState, status.CoreDump())
			}
			if entries, _ := os.ReadDir(cmd.Dir); len(entries) != 0 {
				t.Errorf("it left %v", entries)
			}
		})
	}
}

// TestSystemFindings asserts what doctor says of systems that it does not run on here.
func TestSystemFindings(t *testing.T) {
	for name, test := range map[string]struct {
		facts   isolation.Facts
		plugins bool
		want    []string // empty: nothing is found
		verdict string
	}{
		"Windows":          {isolation.Facts{System: "windows"}, false, []string{"plugins do not run here", "memory and environment", "crash dumps", "as open as their directory", "on Linux"}, verdictWarn},
		"macOS":            {isolation.Facts{System: "darwin"}, false, []string{"plugins do not run here", "environment", "put the key into a file"}, verdictWarn},
		"all":              {isolation.Facts{System: "linux", Hardened: true, Landlock: 9}, true, []string{"under Landlock 9: they cannot read the key files"}, verdictOK},
		"no plugins":       {isolation.Facts{System: "linux", Hardened: true}, false, nil, ""},
		"without Landlock": {isolation.Facts{System: "linux", Hardened: true}, true, []string{"can read every file", "Linux 5.13", "landlock_create_ruleset"}, verdictWarn},
		"Landlock 5":       {isolation.Facts{System: "linux", Hardened: true, Landlock: 5}, true, []string{"end processes of this user", "unix sockets"}, verdictOK},
		"not hardened":     {isolation.Facts{System: "linux", Landlock: 9}, false, []string{"memory and environment", "PR_SET_DUMPABLE"}, verdictWarn},
	} {
		findings := checkSystem(test.facts, test.plugins)
		if len(test.want) == 0 {
			if len(findings) != 0 {
				t.Errorf("%s: %+v", name, findings)
			}
			continue
		}
		if len(findings) != 1 || findings[0].Verdict != test.verdict {
			t.Errorf("%s: %+v", name, findings)
			continue
		}
		for _, want := range test.want {
			if !strings.Contains(findings[0].Detail+findings[0].Remedy, want) {
				t.Errorf("%s: %+v does not say %q", name, findings[0], want)
			}
		}
	}
}

// TestHiddenFiles asserts that every file of a secret that a configuration names is
// kept from plugins, and the databases' own.
func TestHiddenFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(testKey), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	hidden := func(environ ...string) []string {
		cfg, _ := config.Load(environ, config.EnvFile{Path: dir + "/.env", Optional: true})
		return wiring.HiddenFiles(cfg)
	}
	url := file("url")
	if err := os.WriteFile(url, []byte("postgres://u@h/d?passfile=/p/pass&sslkey=/p/key"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ got, want []string }{
		"files": {
			hidden("FOREST_AUTH_SECRET_FILE="+file("secret"), "FOREST_EXECUTOR_ENCRYPTION_KEY_FILE="+file("key"), "FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS_FILE="+file("keys"), "DATABASE_URL_FILE="+url),
			[]string{dir + "/secret", dir + "/key", dir + "/keys", dir + "/url", "/p/pass", "/p/key", dir + "/.env"},
		},
		"password":      {hidden("DATABASE_HOST=h", "DATABASE_NAME=d", "DATABASE_USER=u", "DATABASE_PASSWORD_FILE="+file("password")), []string{dir + "/password"}},
		"SQLite":        {hidden("DATABASE_URL=sqlite:" + dir + "/v.db"), []string{dir + "/v.db", dir + "/v.db-wal", dir + "/v.db-shm", dir + "/v.db-journal"}},
		"the default":   {hidden(), []string{"lockwood.db", "lockwood.db-wal"}},
		"libpq":         {hidden("DATABASE_URL=postgres://u@h/d", "HOME=/h", "PGPASSFILE=/p/f"), []string{"/h/.pgpass", "/h/.postgresql", "/p/f"}},
		"another's key": {hidden("FOREST_EXECUTOR_KEY_PROVIDER=vault://h/transit/keys/k?token_file=/t/token"), []string{"/t/token"}},
	} {
		for _, want := range test.want {
			if !slices.Contains(test.got, want) {
				t.Errorf("%s: %s is not among %q", name, want, test.got)
			}
		}
	}
}

// TestHiddenFilesOfACommand asserts that the databases which a command opens besides the
// configured one, and the files that their URLs name, are kept from plugins.
func TestHiddenFilesOfACommand(t *testing.T) {
	d := filledSQLite(t)
	configured := strings.TrimPrefix(d.url, "sqlite:")
	other := strings.TrimPrefix(filledSQLite(t).url, "sqlite:")
	for name, test := range map[string]struct {
		database *config.Database
		target   string
		want     []string
	}{
		"a file examined":   {database: &config.Database{Driver: config.SQLite, Path: other}, want: []string{configured, configured + "-wal", other, other + "-wal"}},
		"a target of files": {target: "sqlite:/t/to.db", want: []string{configured, "/t/to.db", "/t/to.db-journal"}},
		"a target server":   {target: "postgres://u@h/d?passfile=/p/pass&sslkey=/p/key", want: []string{configured, "/p/pass", "/p/key", "/h/.pgpass"}},
	} {
		c := newCLI(io.Discard, io.Discard)
		c.database, c.target = test.database, test.target
		v, err := c.open(t.Context(), append(d.env, "HOME=/h"), toLook)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := wiring.HiddenFiles(v.cfg)
		v.close()
		for _, want := range test.want {
			if !slices.Contains(got, want) {
				t.Errorf("%s: %s is not among %q", name, want, got)
			}
		}
	}
}

// TestInstallingAPlugin runs the commands of docs/plugins.md as they are, but for where
// they install to.
func TestInstallingAPlugin(t *testing.T) {
	t.Parallel()
	kms, _, _, aws := awsKey(t)
	built := strings.TrimPrefix(pluginsEnv(t)[0], "FOREST_EXECUTOR_PLUGIN_DIR=")
	text, err := os.ReadFile("../../docs/plugins.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "## Installing one")
	_, after, _ = strings.Cut(after, "```sh\n")
	script, _, _ := strings.Cut(after, "```")
	root := t.TempDir()
	for from, to := range map[string]string{"/usr/local": root + "/usr/local", "bin/plugins/": built + "/"} {
		if !strings.Contains(script, from) {
			t.Fatalf("the commands no longer say %s:\n%s", from, script)
		}
		script = strings.ReplaceAll(script, from, to)
	}
	cmd := shell(t, append(aws, "AWS_ENDPOINT_URL_KMS="+kms.URL), script)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "unwrap: p50") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestExamplesLetPluginsRun asserts that what our deployments need for plugins, and
// for keeping secrets from them, is there.
func TestExamplesLetPluginsRun(t *testing.T) {
	for name, wants := range map[string][]string{
		"compose.yaml":     {"read_only: true", `tmpfs: ["/tmp:`},
		"kubernetes.yaml":  {"readOnlyRootFilesystem: true", "- {name: tmp, mountPath: /tmp}", "- name: tmp\n          emptyDir:"},
		"lockwood.service": {"PrivateTmp=yes", "install -m 0111 bin/lockwood", "SystemCallFilter=landlock_create_ruleset landlock_add_rule landlock_restrict_self"},
		"Dockerfile":       {"chmod 0111 /out/lockwood"},
	} {
		for _, want := range wants {
			if !strings.Contains(deployed(t, name), want) {
				t.Errorf("%s does not say %q", name, want)
			}
		}
	}
}

// TestUnitPermitsLandlock asks systemd whether the unit's filter, set by set in its
// order, leaves the system calls that the isolation of plugins needs.
func TestUnitPermitsLandlock(t *testing.T) {
	needed := []string{"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"}
	if _, err := exec.LookPath("systemd-analyze"); err == nil { // else only what is not in a set can be judged
		needed = append(needed, "prctl", "prlimit64", "memfd_create", "fcntl", "close_range", "clone", "waitid", "pidfd_open")
	}
	permitted := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^SystemCallFilter=(~?)(.*)$`).FindAllStringSubmatch(deployed(t, "lockwood.service"), -1) {
		for set := range strings.FieldsSeq(m[2]) {
			for _, call := range systemCalls(t, set) {
				permitted[call] = m[1] == ""
			}
		}
	}
	for _, call := range needed {
		if !permitted[call] {
			t.Errorf("the unit refuses %s", call)
		}
	}
}

// systemCalls returns the system calls of a set, or a call itself.
func systemCalls(t *testing.T, set string) (calls []string) {
	t.Helper()
	if !strings.HasPrefix(set, "@") {
		return []string{set}
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "syscall-filter", set).Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil
	}
	if err != nil {
		t.Fatalf("asking systemd for %s: %v", set, err)
	}
	for _, name := range strings.Fields(string(out))[1:] {
		switch {
		case strings.HasPrefix(name, "@"):
			calls = append(calls, systemCalls(t, name)...)
		default:
			calls = append(calls, name)
		}
	}
	return calls
}
