package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/lockwood-kms/lockwood/internal/buildtest"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// readmeBlocks returns the shell blocks of the README, as written.
func readmeBlocks(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, m[1])
	}
	return blocks
}

// block returns the one shell block of the README that holds mark, with
// placeholders, which have to be there, replaced.
func block(t *testing.T, mark string, placeholders ...string) string {
	t.Helper()
	for _, b := range readmeBlocks(t) {
		if !strings.Contains(b, mark) {
			continue
		}
		for i := 0; i < len(placeholders); i += 2 {
			if !strings.Contains(b, placeholders[i]) {
				t.Fatalf("the README no longer says %s", placeholders[i])
			}
			b = strings.Replace(b, placeholders[i], placeholders[i+1], 1)
		}
		return b
	}
	t.Fatalf("the README no longer has a block with %q", mark)
	return ""
}

// shell returns a shell that runs script with lockwood on its path.
func shell(t *testing.T, env []string, script string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	shim := "#!/bin/sh\n" + runMain + "=1 exec " + os.Args[0] + ` "$@"` + "\n"
	if err := os.WriteFile(filepath.Join(dir, "lockwood"), []byte(shim), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.Background(), "sh", "-ec", script)
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + dir + ":" + os.Getenv("PATH"), "GODEBUG=" + os.Getenv("GODEBUG")}, env...)
	return ownGroup(cmd)
}

// ownGroup makes killing cmd kill what it started too.
func ownGroup(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

func TestReadmeRuns(t *testing.T) {
	t.Parallel()
	command := strings.TrimSpace(readmeBlocks(t)[0])
	if command != "go run ./cmd/lockwood serve --dev" {
		t.Fatalf("the README's first command is %q", command)
	}
	if second := strings.TrimSpace(readmeBlocks(t)[1]); second != "scripts/test" {
		t.Fatalf("the README's second command is %q", second)
	}
	ci, err := os.ReadFile("../../.ci/run")
	if err != nil || !strings.Contains(string(ci), "scripts/test") {
		t.Errorf(".ci/run does not run the README's test command: %v", err)
	}

	cmd := exec.CommandContext(context.Background(), "sh", "-c", command)
	cmd.Dir = checkout(t)
	cmd.Env = append(os.Environ(), "HTTP_PORT=0", "ADMIN_ADDR=127.0.0.1:0", "GOFLAGS=-mod=readonly -buildvcs=false")
	compile := exec.CommandContext(t.Context(), "go", "list", "-export", "-deps", "./cmd/lockwood") // however long that takes
	compile.Dir, compile.Env = cmd.Dir, cmd.Env
	if text, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	ownGroup(cmd)
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Cancel()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(out.String())
		}
	})
	pgtest.Eventually(t, "the curl lines are printed", func() bool { return len(curlLines(out.String())) == 5 })
	runCurlLines(t, out.String())
}

// checkout copies the sources into a directory of their own, so that running
// them leaves nothing in this one. It is the same one each time, for which the Go tool
// has what it built before.
func checkout(t *testing.T) string {
	t.Helper()
	root := "../.."
	to, turn, err := buildtest.Kept("checkout", root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = turn.Close() })
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"go.mod", "go.sum", "access", "afresh", "backup", "cmd", "config", "core", "credential", "fleet", "httpapi", "internal", "plugins", "providers", "relocation", "rotation", "store"} {
		if out, err := exec.CommandContext(t.Context(), "cp", "-r", filepath.Join(root, name), to).CombinedOutput(); err != nil {
			t.Fatalf("copying %s: %v\n%s", name, err, out)
		}
	}
	return to
}

func TestReadmeTakeOver(t *testing.T) {
	t.Parallel()
	d, e := upstreamDatabase(t)
	env := []string{"DATABASE_SSL=false", "HTTP_HOST=127.0.0.1", "HTTP_PORT=0", "ADMIN_ADDR=127.0.0.1:0"}
	look := block(t, "lockwood doctor",
		"postgres://user:password@db.example.com:5432/app", d.url,
		"FOREST_EXECUTOR_ENCRYPTION_KEY='…'", "FOREST_EXECUTOR_ENCRYPTION_KEY='"+e.Key+"'",
		"FOREST_AUTH_SECRET='…'", "FOREST_AUTH_SECRET='"+e.AuthSecret+"'")
	if out, err := shell(t, env, look).CombinedOutput(); err != nil || !strings.Contains(string(out), "credentials  59") {
		t.Fatalf("looking: %v\n%s", err, out)
	}
	beside := launch(t, shell(t, append(d.env, env...), block(t, "WRITE_FORMAT=legacy"))).ready(t)
	beside.secret = e.AuthSecret
	if a := beside.deposit(t, 7, "s", "FAKE"); a.status != 200 || strings.HasPrefix(string(d.record(t, 7, "s")), "LKW1") {
		t.Errorf("side by side: %d %s", a.status, a.body)
	}

	change := block(t, "lockwood key generate", "$OLD_KEY", e.Key, "$NEW_KEY", otherKey) + "exec lockwood serve"
	changed := launch(t, shell(t, append(d.env, env...), change)).ready(t)
	changed.secret = e.AuthSecret
	if a := changed.deposit(t, 7, "s", "FAKE"); a.status != 200 || !strings.HasPrefix(string(d.record(t, 7, "s")), "LKW1") {
		t.Errorf("after the change: %d %s", a.status, a.body)
	}
	with := d.with("FOREST_EXECUTOR_ENCRYPTION_KEY="+otherKey, "FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS="+e.Key)
	if report := verify(t, with, exitOK); report.Credentials != 60 {
		t.Errorf("credentials verify says %+v", report)
	}
}

func TestReadmeMoveToAKMS(t *testing.T) {
	t.Parallel()
	kms, _, _, aws := awsKey(t)
	d := sqliteDatabase(t)
	s := serve(t, d.env).ready(t)
	if a := s.deposit(t, 7, "s", "FAKE"); a.status != 200 {
		t.Fatalf("under the env key: %+v", a)
	}
	s.kill()
	env := append(append(d.env, pluginsEnv(t)...), append(aws, "AWS_ENDPOINT_URL_KMS="+kms.URL, "HTTP_HOST=127.0.0.1", "HTTP_PORT=0", "ADMIN_ADDR=127.0.0.1:0")...)
	if out, err := shell(t, env, block(t, "lockwood plugin check")).CombinedOutput(); err != nil || !strings.Contains(string(out), "unwrap: p50") {
		t.Fatalf("trying the key: %v\n%s", err, out)
	}
	moved := launch(t, shell(t, env, strings.Replace(block(t, "export FOREST_EXECUTOR_KEY_PROVIDER"), "lockwood serve", "exec lockwood serve", 1))).ready(t)
	moved.seals(t)
	if calls := kms.Calls(); calls["Encrypt"] != 1+1 { // of the check, and of the one data key
		t.Errorf("the KMS wrapped %d times, want twice", calls["Encrypt"])
	}
	env = append(env, "FOREST_EXECUTOR_KEY_PROVIDER=awskms:///alias/forest?region=eu-west-3")
	if report := verify(t, env, exitOK); report.OK != report.Records {
		t.Errorf("credentials verify says %+v", report)
	}
}
