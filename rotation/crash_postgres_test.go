package rotation_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/postgres"
)

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

func (c *postgresCrash) crash(t *testing.T, kind string, n int, after bool) (where string, reached bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tracer := &crasher{at: n, after: after, cancel: cancel}
	step := crashKinds()[kind]
	first := step.as.start(t, c.traced(t, tracer))
	tracer.arm()
	err := step.run(ctx, first)
	where, reached = tracer.state()
	if reached && !after && err == nil {
		t.Logf("statement %d (%s) was refused, and the step got along without it", n, where)
	}
	first.ring.Close() // the ring's own work is stopped as the step is
	first.store.Close()
	return where, reached
}

// crasher stops what happens at one of the statements that touch Lockwood's tables.
type crasher struct {
	at     int
	after  bool // nothing reaches the database once the statement took effect; else only the statement is refused
	cancel func()

	mu      sync.Mutex
	armed   bool
	dead    bool
	seen    int
	where   string
	reached bool
}

// lastWord marks the context of the statement after which a crasher is dead.
type lastWord struct{}

func (c *crasher) arm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = true
}

func (c *crasher) state() (where string, reached bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.where, c.reached
}

// start returns the context that a statement is to have: one that is cancelled
// refuses it.
func (c *crasher) start(ctx context.Context, sql string) context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.armed || !ours(sql) {
		return ctx
	}
	refused, cancel := context.WithCancel(ctx)
	cancel()
	if c.dead {
		return refused
	}
	if c.seen++; c.seen != c.at {
		return ctx
	}
	c.reached, c.where = true, abridged(sql)
	if c.after {
		return context.WithValue(ctx, lastWord{}, true)
	}
	return refused
}

func (c *crasher) end(ctx context.Context) {
	if ctx.Value(lastWord{}) == nil {
		return
	}
	c.mu.Lock()
	c.dead = true
	c.mu.Unlock()
	c.cancel()
}

// TraceQueryStart implements pgx.QueryTracer.
func (c *crasher) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	return c.start(ctx, data.SQL)
}

// TraceQueryEnd implements pgx.QueryTracer.
func (c *crasher) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryEndData) {
	c.end(ctx)
}

// TraceCopyFromStart implements pgx.CopyFromTracer: a COPY is a statement too, and
// a QueryTracer alone does not see it.
func (c *crasher) TraceCopyFromStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceCopyFromStartData) context.Context {
	return c.start(ctx, "COPY "+strings.Join(data.TableName, "."))
}

// TraceCopyFromEnd implements pgx.CopyFromTracer.
func (c *crasher) TraceCopyFromEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceCopyFromEndData) {
	c.end(ctx)
}

var _ pgx.CopyFromTracer = (*crasher)(nil)
