package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/internal/tmptest"
)

// olderCommit is the last one before the ring was taken apart and its store kept a
// revision.
const olderCommit = "ad093c2"

// In a rolling deployment instances of two versions serve one store. Whichever of them
// deposits, rolls or rotates, the other follows, and both open everything.
//
//	LOCKWOOD_TEST_LONG=1 go test ./cmd/lockwood -run TestSideBySide -v
func TestSideBySide(t *testing.T) {
	if !tmptest.Long() {
		t.Skip("the long form builds an older version: say LOCKWOOD_TEST_LONG=1")
	}
	older := buildOlder(t)
	eachDatabase(t, func(t *testing.T, d *testDatabase) { sideBySide(t, d, older) })
}

// buildOlder returns the binary of olderCommit, from the history of the repository.
func buildOlder(t *testing.T) string {
	t.Helper()
	source, binary := t.TempDir(), filepath.Join(t.TempDir(), "lockwood-older")
	if out, err := exec.CommandContext(t.Context(), "git", "cat-file", "-e", olderCommit+"^{commit}").CombinedOutput(); err != nil {
		t.Skipf("the history of the repository is not here: %v %s", err, out)
	}
	unpack := exec.CommandContext(t.Context(), "sh", "-ec", `git -C "$(git rev-parse --show-toplevel)" archive `+olderCommit+` | tar -x -C "$1"`, "sh", source)
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("unpacking %s: %v\n%s", olderCommit, err, out)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/lockwood")
	build.Dir = source
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", olderCommit, err, out)
	}
	return binary
}

// release is one of the two that run side by side.
type release struct {
	name   string
	binary string
	env    []string
	s      *server
	first  int64 // of its users
}

func (v *release) command(ctx context.Context, t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := lockwood(ctx, t, v.env, args...)
	cmd.Path, cmd.Args[0] = v.binary, v.binary
	return cmd
}

func (v *release) serve(t *testing.T) {
	t.Helper()
	cmd := v.command(context.Background(), t, "serve")
	cmd.Env = append(cmd.Env, "HTTP_HOST=127.0.0.1", "HTTP_PORT=0", "ADMIN_ADDR=127.0.0.1:0", "LOG_FORMAT=json")
	v.s = launch(t, cmd).ready(t)
}

// deposits deposits n credentials of users of its own, anew each time.
func (v *release) deposits(t *testing.T, n int64) {
	t.Helper()
	for u := range n {
		if a := v.s.deposit(t, v.first+u, "server", "token"); a.status >= 300 {
			t.Fatalf("a deposit by the %s: %+v\n%s", v.name, a, v.s.log)
		}
	}
}

// do runs a command of this version, which has to succeed.
func (v *release) do(t *testing.T, args ...string) {
	t.Helper()
	if r := finish(t, v.command(t.Context(), t, args...), ""); r.code != exitOK {
		t.Fatalf("%v by the %s: exit code %d\n%s%s", args, v.name, r.code, r.stdout, r.stderr)
	}
}

func sideBySide(t *testing.T, d *testDatabase, older string) {
	const each = 10
	env := append(d.env, "DRAIN_GRACE=0s")
	was := &release{name: "older version", binary: older, env: env, first: 100}
	now := &release{name: "present version", binary: os.Args[0], env: env, first: 200}
	both := []*release{was, now}
	was.serve(t)
	was.deposits(t, each)
	now.serve(t) // and migrates
	steps := [][]string{{"key", "roll"}, {"key", "rotate", "--reseal", "--wait"}, {"key", "rewrap"}, {"key", "rotate", "--reseal", "--wait"}}
	for i, step := range steps {
		for _, by := range both {
			by.do(t, step...)
			for _, v := range both {
				v.follows(t, d)
				v.deposits(t, each)
			}
			for _, v := range both {
				v.do(t, "credentials", "verify")
			}
			t.Logf("step %d: %v by the %s", i+1, step, by.name)
		}
	}
	if report := verify(t, env, exitOK); report.Records != 2*each || report.OK != 2*each || report.Stale != 0 {
		t.Errorf("in the end: %+v", report)
	}
	for _, v := range both {
		v.s.stop(t)
	}
	was.serve(t) // back to the older version alone
	was.deposits(t, each)
	was.do(t, "credentials", "verify")
}

// follows waits until this version seals under the store's primary data key.
func (v *release) follows(t *testing.T, d *testDatabase) {
	t.Helper()
	pgtest.Eventually(t, "the "+v.name+" seals under the present data key", func() bool {
		v.deposits(t, 1)
		id, ok := envelope.ParseHeader(d.record(t, v.first, "server"))
		primary := "is_primary"
		if d.schema == "" {
			primary = "is_primary = 1"
		}
		var keyID []byte
		if err := d.db.QueryRowContext(t.Context(), "SELECT key_id FROM "+d.schema+"lockwood_data_keys WHERE "+primary).Scan(&keyID); err != nil {
			t.Fatal(err)
		}
		return ok && envelope.KeyID(keyID) == id
	})
}
