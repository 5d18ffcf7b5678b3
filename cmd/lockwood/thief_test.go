package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/plugins"
	"github.com/lockwood-kms/lockwood/plugins/isolation"
	"github.com/lockwood-kms/lockwood/providers/envkey"
)

// The names under which this binary is a plugin that steals, and what it leaves
// behind.
const (
	thiefName    = plugins.FilePrefix + "thief"
	leftoverName = "leftover"
)

// beThief makes this binary be what its name says.
func beThief() {
	switch os.Args[0] {
	case thiefName:
		plugins.Serve("thief", openThief, &plugins.ServeOptions{Version: "test"})
	case leftoverName:
		prowl(os.Args[1], os.Args[2], "leftover")
	}
}

// openThief is a key provider that works, and looks through all it can reach: the
// files below the option root, and the environment and the memory of every process,
// for as long as it lives. What it finds it notes in the directory loot.
func openThief(ctx context.Context, uri core.KeyURI) (core.KeyProvider, error) {
	root, loot := uri.Options["root"], uri.Options["loot"]
	behind := &exec.Cmd{Path: "/proc/self/exe", Args: []string{leftoverName, root, loot}, SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	if err := behind.Start(); err != nil {
		return nil, err
	}
	go prowl(root, loot, "plugin")
	keys, err := envkey.New(envkey.Options{Value: []byte("1b3f5a7c9e0d2b4f6a8c1e3d5f7b9a0c2e4f6b8d0a1c3e5f7092b4d6f8a1c3e5")})
	if err != nil {
		return nil, err
	}
	kek, err := core.ParseKeyURI(envkey.URI)
	if err != nil {
		return nil, err
	}
	return keys.Factory()(ctx, kek)
}

// readable returns the files below root that can be read.
func readable(root string) (paths []string) {
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if _, err := os.ReadFile(path); err == nil {
				paths = append(paths, path)
			}
		}
		return nil
	})
	return paths
}

// prowl looks at every file below root and at every process, again and again. It
// notes the files that it can read, the variables of Lockwood that it sees, the memory
// that it can read, and how many processes it looked at.
func prowl(root, loot, who string) {
	seen := map[string]bool{}
	for looked := 0; ; {
		processes, _ := filepath.Glob("/proc/[0-9]*")
		for _, proc := range processes {
			if name, _ := os.ReadFile(proc + "/cmdline"); bytes.HasPrefix(name, []byte(leftoverName)) || bytes.HasPrefix(name, []byte(thiefName)) {
				continue // its own kind
			}
			looked++
			environ, _ := os.ReadFile(proc + "/environ")
			for _, name := range []string{"FOREST_EXECUTOR_ENCRYPTION_KEY", "FOREST_AUTH_SECRET", "DATABASE_URL"} {
				if bytes.Contains(environ, []byte(name+"=")) {
					seen[name] = true
				}
			}
			if mem, err := os.Open(proc + "/mem"); err == nil {
				seen["memory"] = true
				_ = mem.Close()
			}
		}
		var found []string
		for what := range seen {
			found = append(found, what)
		}
		note(loot, who+" files", readable(root))
		note(loot, who, append(found, fmt.Sprint("looked ", looked)))
		<-time.After(time.Millisecond)
	}
}

// note replaces a list in the loot.
func note(loot, name string, list []string) {
	text, _ := json.Marshal(list) // strings only
	path := filepath.Join(loot, name)
	if os.WriteFile(path+".new", text, 0o644) == nil {
		_ = os.Rename(path+".new", path)
	}
}

// loot is what is noted there.
func noted(t *testing.T, loot, name string) (list []string) {
	t.Helper()
	pgtest.Eventually(t, "the thief notes something", func() bool {
		text, err := os.ReadFile(filepath.Join(loot, name))
		return err == nil && json.Unmarshal(text, &list) == nil
	})
	return list
}

// prowled waits until each of who has looked at processes after now, and returns what
// they have ever seen.
func prowled(t *testing.T, loot string, who ...string) (seen []string) {
	t.Helper()
	for _, name := range who {
		before := noted(t, loot, name)
		pgtest.Eventually(t, "the thief looks", func() bool {
			now := noted(t, loot, name)
			return now[len(now)-1] != before[len(before)-1]
		})
		now := noted(t, loot, name)
		seen = append(seen, now[:len(now)-1]...)
	}
	return seen
}

// TestThievingPlugin runs the service with a plugin that steals, set up as our
// examples are: the key in a file, the secret in the environment, the embedded
// database, and a file of variables. Neither the plugin nor what it leaves behind in
// a session of its own gets any of it: not from the service, not from commands that
// run beside it, and not from those that run after the service was killed.
func TestThievingPlugin(t *testing.T) {
	if isolation.Examine().ReadsFiles() {
		t.Skip("this kernel has no Landlock")
	}
	users := map[string]int{"this user": os.Geteuid()}
	if os.Geteuid() == 0 {
		users["ordinary user"] = 65534
	}
	for name, uid := range users {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			thieve(t, newTarget(t, uid))
		})
	}
}

func thieve(t *testing.T, target *target) {
	s := launch(t, target.command(t, "serve")).ready(t)
	if a := s.deposit(t, 1, "s", "FAKE"); a.status != 200 {
		t.Fatalf("deposit: %d %s", a.status, a.body)
	}
	if seen := prowled(t, target.loot, "plugin", "leftover"); len(seen) > 0 {
		t.Errorf("from the service: %q", seen)
	}
	files := append(noted(t, target.loot, "plugin files"), noted(t, target.loot, "leftover files")...)
	for _, secret := range []string{"key", "data/vault.db", "data/vault.db-wal", "data/vault.db-shm", "data/.env"} {
		if _, err := os.Stat(filepath.Join(target.dir, secret)); err != nil {
			t.Fatal(err)
		}
		if slices.Contains(files, filepath.Join(target.dir, secret)) {
			t.Errorf("the plugin read %s", secret)
		}
	}
	if !slices.Contains(files, filepath.Join(target.dir, "data/unrelated")) {
		t.Errorf("the plugin did not look properly: it read %q", files)
	}
	beside := target.command(t, "doctor")
	if out, err := beside.CombinedOutput(); !strings.Contains(string(out), "isolation: plugins run under Landlock") {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	if seen := prowled(t, target.loot, "plugin", "leftover"); len(seen) > 0 {
		t.Errorf("beside the service: %q", seen)
	}
	s.kill()
	if target.uid != 0 { // root has namespaces, and the leftover is gone
		later := target.command(t, "serve")
		later.Env = append(later.Env, "FOREST_EXECUTOR_KEY_PROVIDER="+envkey.URI)
		launch(t, later)
		if seen := prowled(t, target.loot, "leftover"); len(seen) > 0 {
			t.Errorf("after the service was killed: %q", seen)
		}
	}
}

// target is a service that is to be robbed.
type target struct {
	dir, loot, binary string
	uid               int
	env               []string
}

func newTarget(t *testing.T, uid int) *target {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "lw") //nolint:usetesting // another user has to reach it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	g := &target{dir: dir, loot: filepath.Join(dir, "loot"), binary: filepath.Join(dir, "lockwood"), uid: uid}
	for _, path := range []string{"plugins", "data", "loot"} {
		err = errors.Join(err, os.Mkdir(filepath.Join(dir, path), 0o755))
	}
	err = errors.Join(err, os.Chmod(dir, 0o755), os.Link(os.Args[0], g.binary), os.Link(os.Args[0], filepath.Join(dir, "plugins", thiefName)))
	for path, text := range map[string]string{"key": testKey, "data/.env": "FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS=" + otherKey + "\n", "data/unrelated": "x"} {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600), os.Chown(filepath.Join(dir, path), uid, uid))
	}
	err = errors.Join(err, os.Chown(filepath.Join(dir, "data"), uid, uid), os.Chown(g.loot, uid, uid))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.endLeftovers() })
	g.env = []string{
		"FOREST_AUTH_SECRET=" + testAuthSecret, "FOREST_EXECUTOR_ENCRYPTION_KEY_FILE=" + filepath.Join(dir, "key"),
		"DATABASE_URL=sqlite:" + filepath.Join(dir, "data/vault.db"),
		"FOREST_EXECUTOR_PLUGIN_DIR=" + filepath.Join(dir, "plugins"), "FOREST_EXECUTOR_PLUGIN_LOCK=" + filepath.Join(dir, "plugins.lock"),
		"FOREST_EXECUTOR_KEY_PROVIDER=thief:///x?root=" + dir + "&loot=" + g.loot,
		"HTTP_HOST=127.0.0.1", "HTTP_PORT=0", "ADMIN_ADDR=127.0.0.1:0", "LOG_FORMAT=json", "GORACE=atexit_sleep_ms=0",
	}
	if r := do(t, g.env, "plugin", "pin", "thief", "--write", g.loot, "--env", "GORACE"); r.code != exitOK || !strings.Contains(r.stdout, "it may change "+g.loot) {
		t.Fatalf("plugin pin: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	return g
}

// command is lockwood as the target's user.
func (g *target) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := lockwood(context.Background(), t, g.env, args...)
	cmd.Path, cmd.Dir = g.binary, filepath.Join(g.dir, "data")
	if g.uid != os.Geteuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(g.uid), Gid: uint32(g.uid)}}
	}
	return cmd
}

// endLeftovers ends the processes that note what they see in this target's loot.
func (g *target) endLeftovers() {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		if text, _ := os.ReadFile(path); string(text) == leftoverName+"\x00"+g.dir+"\x00"+g.loot+"\x00" {
			var pid int
			if _, err := fmt.Sscanf(path, "/proc/%d/cmdline", &pid); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
}
