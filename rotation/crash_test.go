package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/rotation"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/postgres"
	"github.com/lockwood-kms/lockwood/store/sqlite"
)

// A rotation is stopped at each statement that it sends, before the statement is
// executed and after it took effect, and run again: the end is the same as if it
// had not been stopped. On PostgreSQL the statement is refused, or the rotation
// cancelled once it has its answer; on SQLite, which is in the process, the process
// is killed. Every statement is tried with LOCKWOOD_TEST_LONG=1, and otherwise a
// part of them:
//
//	LOCKWOOD_TEST_LONG=1 go test ./rotation -run TestEveryCrashPoint -timeout 30m
func TestEveryCrashPoint(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		everyCrashPoint(t, func(t *testing.T) crashable { return &sqliteCrash{path: filepath.Join(t.TempDir(), "vault.db")} })
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		cluster := pgtest.Shared(t)
		everyCrashPoint(t, func(t *testing.T) crashable { return &postgresCrash{url: cluster.NewDatabase(t)} })
	})
}

// crashable is an empty database.
type crashable interface {
	open(t *testing.T) store.Store
	// rotate moves the database from key A to key B, and stops at the n-th statement
	// that touches Lockwood's tables, before or after that is executed. It reports
	// whether there was an n-th statement, and its text.
	rotate(t *testing.T, kind string, n int, after bool) (where string, reached bool)
}

// rotations are the kinds of rotation, and every how many statements one is tried
// in the short form.
var rotations = map[string]struct {
	opts rotation.RotateOptions
	step int
}{
	"rewrap":      {rotation.RotateOptions{}, 7},
	"reseal":      {rotation.RotateOptions{Reseal: true}, 19},
	"compromised": {rotation.RotateOptions{Compromised: true}, 23},
}

// everyCrashPoint tries the statements of each kind of rotation.
func everyCrashPoint(t *testing.T, database func(*testing.T) crashable) {
	for kind, r := range rotations {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			step := 1
			if os.Getenv("LOCKWOOD_TEST_LONG") == "" {
				step = r.step
			}
			points := 0
			for at := 1; ; at += step {
				reached := crashAt(t, database(t), kind, at, at%2 == 0)
				if step == 1 && reached {
					reached = crashAt(t, database(t), kind, at, at%2 != 0)
				}
				if !reached {
					break
				}
				points++
			}
			if points < 2 {
				t.Errorf("only %d crash points", points)
			}
			t.Logf("%d crash points", points)
		})
	}
}

// crashAt stops a rotation at its n-th statement, runs it again, and looks at the
// end. It reports whether there was an n-th statement.
func crashAt(t *testing.T, database crashable, kind string, n int, after bool) (reached bool) {
	t.Helper()
	opts := rotations[kind].opts
	v := makeVault(t, database)
	where, reached := database.rotate(t, kind, n, after)
	name := fmt.Sprintf("statement %d, after %t (%s)", n, after, where)
	second := startOn(t, database.open(t), keyB, keyA)
	for _, attempt := range []string{"running it again", "a third time"} {
		report, err := second.rotator.Rotate(t.Context(), opts)
		if err != nil {
			t.Fatalf("%s: %s: %v", name, attempt, err)
		}
		v.judge(t, name+", "+attempt, second, report, opts)
	}
	second.ring.Close()
	second.store.Close()
	return reached
}

// ours reports whether a statement is one to stop at. River's come when they like.
func ours(sql string) bool {
	return (strings.Contains(sql, "lockwood_") || strings.Contains(sql, credential.Table) || strings.EqualFold(sql, "commit")) &&
		!strings.Contains(sql, "river_")
}

// abridged returns the beginning of a statement.
func abridged(sql string) string {
	text := strings.Join(strings.Fields(sql), " ")
	return text[:min(len(text), 60)]
}

// sqliteCrash is a database file. What rotates is another process, so that it can be
// killed.
type sqliteCrash struct{ path string }

func (c *sqliteCrash) open(t *testing.T) store.Store { return c.traced(t, nil) }

func (c *sqliteCrash) traced(t *testing.T, trace func(sql string, done bool)) store.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: c.path, Trace: trace})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// crashJob names what the other process is to do; it is that process when it is
// set.
const crashJob = "LOCKWOOD_TEST_CRASH_JOB"

func (c *sqliteCrash) rotate(t *testing.T, kind string, n int, after bool) (where string, reached bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRotateUntilKilled$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %t %s", crashJob, kind, n, after, c.path))
	out, err := cmd.CombinedOutput()
	if err == nil {
		return "", false
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("the rotation ended with %v, and was not killed: %s", err, out)
	}
	return strings.TrimSpace(string(out)), true
}

// TestRotateUntilKilled is no test: it is what the other process of a sqliteCrash
// runs, which kills itself at a statement.
func TestRotateUntilKilled(t *testing.T) {
	var kind, path string
	var at int
	var after bool
	if n, _ := fmt.Sscanf(os.Getenv(crashJob), "%s %d %t %s", &kind, &at, &after, &path); n != 4 {
		return
	}
	var seen atomic.Int64
	var armed atomic.Bool
	c := &sqliteCrash{path}
	i := startOn(t, c.traced(t, func(sql string, done bool) {
		if armed.Load() && done == after && ours(sql) && seen.Add(1) == int64(at) {
			fmt.Fprintln(os.Stderr, abridged(sql))
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}), keyB, keyA)
	armed.Store(true)
	if _, err := i.rotator.Rotate(t.Context(), rotations[kind].opts); err != nil {
		t.Fatal(err)
	}
}

// postgresCrash is a database of a cluster.
type postgresCrash struct{ url string }

func (c *postgresCrash) open(t *testing.T) store.Store { return c.traced(t, nil) }

func (c *postgresCrash) traced(t *testing.T, tracer pgx.QueryTracer) store.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), postgres.Config{URL: core.Secret(c.url), SSL: "false", Tracer: tracer})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (c *postgresCrash) rotate(t *testing.T, kind string, n int, after bool) (where string, reached bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tracer := &crasher{at: n, after: after, cancel: cancel}
	first := startOn(t, c.traced(t, tracer), keyB, keyA)
	tracer.arm()
	_, err := first.rotator.Rotate(ctx, rotations[kind].opts)
	where, reached = tracer.disarm()
	if reached && !after && err == nil {
		t.Logf("statement %d (%s) was refused, and the rotation got along without it", n, where)
	}
	first.ring.Close()
	first.store.Close()
	return where, reached
}

// crasher stops what happens at one of the statements that touch Lockwood's tables.
type crasher struct {
	at     int
	after  bool // stop the rotation once the statement took effect; else refuse the statement
	cancel func()

	mu      sync.Mutex
	armed   bool
	seen    int
	where   string
	reached bool
}

type crashNow struct{}

func (c *crasher) arm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = true
}

func (c *crasher) disarm() (where string, reached bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = false
	return c.where, c.reached
}

// hit counts a statement, and reports whether it is the one.
func (c *crasher) hit(sql string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.armed || !ours(sql) {
		return false
	}
	if c.seen++; c.seen != c.at {
		return false
	}
	c.reached, c.where = true, abridged(sql)
	return true
}

// TraceQueryStart implements pgx.QueryTracer.
func (c *crasher) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if !c.hit(data.SQL) {
		return ctx
	}
	if c.after {
		return context.WithValue(ctx, crashNow{}, true)
	}
	refused, cancel := context.WithCancel(ctx)
	cancel()
	return refused
}

// TraceQueryEnd implements pgx.QueryTracer.
func (c *crasher) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryEndData) {
	if ctx.Value(crashNow{}) != nil {
		c.cancel()
	}
}

// crashVault is a database under key A with what makes a rotation difficult.
type crashVault struct {
	rows   map[int64]credential.Row // by user
	broken int64                    // the user whose token does not open
}

const crashUsers = 12

func makeVault(t *testing.T, database crashable) *crashVault {
	t.Helper()
	v := &crashVault{rows: map[int64]credential.Row{}, broken: 5}
	s := database.open(t)
	if err := s.Migrate(t.Context(), store.MigrateOptions{WriteLegacy: true}); err != nil {
		t.Fatal(err)
	}
	i := startOn(t, s, keyA)
	for u := range int64(crashUsers) {
		if u == 6 { // two data keys
			if err := i.ring.Roll(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		i.deposit(t, u, "server", fmt.Sprintf("token-%d", u))
	}
	row, err := s.Get(t.Context(), v.broken, "server")
	if err != nil {
		t.Fatal(err)
	}
	under, _ := envelope.ParseHeader(row.RefreshTokenEnc)
	row.RefreshTokenEnc[len(row.RefreshTokenEnc)-1] ^= 1
	legacy := &credential.Row{UserID: crashUsers, Metadata: credential.Metadata{MCPServerID: "server", TokenEndpoint: "https://idp.example.com/token"}}
	legacy.RefreshTokenEnc = envKeys(t, keyA).LegacyKey().Seal(nil, []byte(fmt.Sprintf("token-%d", crashUsers)))
	if err := errors.Join(s.Upsert(t.Context(), row, under), s.Upsert(t.Context(), legacy, envelope.KeyID{})); err != nil {
		t.Fatal(err)
	}
	for u := range int64(crashUsers + 1) {
		row, err := s.Get(t.Context(), u, "server")
		if err != nil {
			t.Fatal(err)
		}
		v.rows[u] = *row
	}
	i.ring.Close()
	s.Close()
	return v
}

// judge holds the store to what it has to be at the end, however it came there.
func (v *crashVault) judge(t *testing.T, name string, i *instance, report *rotation.Report, opts rotation.RotateOptions) {
	t.Helper()
	state, err := i.store.LoadRing(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := kekID(t, keyB)
	enabled := 0
	for _, k := range state.DataKeys {
		if k.State != keyring.Enabled {
			continue
		}
		enabled++
		for _, w := range k.Wraps {
			if w.KEKID != b && !opts.Compromised {
				t.Errorf("%s: data key %s is still wrapped under %s", name, k.ID, w.KEKID)
			}
		}
	}
	if enabled != 2 { // without a re-seal the two that there were
		t.Errorf("%s: %d data keys are enabled; want the primary and the one that a broken record is under", name, enabled)
	}
	if report.State != "done" || report.Independent || report.KEKID != b {
		t.Errorf("%s: the report is %+v", name, report)
	}
	for u, before := range v.rows {
		v.judgeRow(t, name, i, u, before, opts)
	}
}

func (v *crashVault) judgeRow(t *testing.T, name string, i *instance, u int64, before credential.Row, opts rotation.RotateOptions) {
	t.Helper()
	row, err := i.store.Get(t.Context(), u, "server")
	if err != nil {
		t.Fatal(err)
	}
	if row.ID != before.ID || !row.UpdatedAt.Equal(before.UpdatedAt) || !row.CreatedAt.Equal(before.CreatedAt) {
		t.Errorf("%s: row %d changed in more than its records", name, u)
	}
	if u == v.broken {
		if string(row.RefreshTokenEnc) != string(before.RefreshTokenEnc) {
			t.Errorf("%s: the broken record was touched", name)
		}
		return
	}
	c, err := i.credentials.Open(t.Context(), u, "server")
	if err != nil || string(c.RefreshToken) != fmt.Sprintf("token-%d", u) {
		t.Errorf("%s: the credential of user %d: %v", name, u, err)
	}
	under, _ := envelope.ParseHeader(row.RefreshTokenEnc)
	if primary := i.ring.Status().Primary; (opts.Reseal || opts.Compromised) && under != primary {
		t.Errorf("%s: the record of user %d is under %s, not the primary %s", name, u, under, primary)
	}
}
