package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
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
)

// A rotation is stopped at each statement that it sends, before the statement is
// executed and after it took effect, and run again: the end is the same as if it
// had not been stopped. Every statement is tried with LOCKWOOD_TEST_LONG=1, and
// otherwise a part of them:
//
//	LOCKWOOD_TEST_LONG=1 go test ./rotation -run TestEveryCrashPoint -timeout 30m
func TestEveryCrashPoint(t *testing.T) {
	cluster := pgtest.Shared(t)
	for name, opts := range map[string]rotation.RotateOptions{
		"rewrap":      {},
		"reseal":      {Reseal: true},
		"compromised": {Compromised: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			step := 1
			if os.Getenv("LOCKWOOD_TEST_LONG") == "" {
				step = map[string]int{"rewrap": 7, "reseal": 19, "compromised": 23}[name]
			}
			points := 0
			for at := 1; ; at += step {
				reached := crashAt(t, cluster, opts, at, at%2 == 0)
				if step == 1 && reached {
					reached = crashAt(t, cluster, opts, at, at%2 != 0)
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
func crashAt(t *testing.T, cluster *pgtest.Cluster, opts rotation.RotateOptions, n int, after bool) (reached bool) {
	t.Helper()
	name := fmt.Sprintf("statement %d, after %t", n, after)
	v := makeVault(t, cluster)
	tracer := &crasher{at: n, after: after}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tracer.cancel = cancel

	s := v.open(t, tracer)
	first := startOn(t, s, keyB, keyA)
	tracer.arm()
	_, err := first.rotator.Rotate(ctx, opts)
	where, reached := tracer.disarm()
	if reached && after && err == nil {
		// It was the last statement, or the last whose outcome mattered.
		t.Logf("%s (%s) ended the rotation", name, where)
	}
	first.ring.Close()
	s.Close()

	second := startOn(t, v.open(t, nil), keyB, keyA)
	report, err := second.rotator.Rotate(t.Context(), opts)
	if err != nil {
		t.Fatalf("%s (%s): running it again: %v", name, where, err)
	}
	v.judge(t, name+" ("+where+")", second, report, opts)
	again, err := second.rotator.Rotate(t.Context(), opts)
	if err != nil {
		t.Fatalf("%s: a third time: %v", name, err)
	}
	v.judge(t, name+", a third time", second, again, opts)
	second.ring.Close()
	second.store.Close()
	return reached
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
	ours := strings.Contains(sql, "lockwood_") || strings.Contains(sql, credential.Table) || sql == "commit"
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.armed || !ours || strings.Contains(sql, "river_") {
		return false
	}
	if c.seen++; c.seen != c.at {
		return false
	}
	c.reached, c.where = true, strings.Join(strings.Fields(sql), " ")
	c.where = c.where[:min(len(c.where), 60)]
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
	url    string
	rows   map[int64]credential.Row // by user
	broken int64                    // the user whose token does not open
}

const crashUsers = 12

func makeVault(t *testing.T, cluster *pgtest.Cluster) *crashVault {
	t.Helper()
	v := &crashVault{url: cluster.NewDatabase(t), rows: map[int64]credential.Row{}, broken: 5}
	s := v.open(t, nil)
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

func (v *crashVault) open(t *testing.T, tracer pgx.QueryTracer) store.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), postgres.Config{URL: core.Secret(v.url), SSL: "false", Tracer: tracer})
	if err != nil {
		t.Fatal(err)
	}
	return s
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
	if reseal := opts.Reseal || opts.Compromised; reseal && enabled != 2 || !reseal && enabled != 2 {
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
