package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/internal/tmptest"
)

const (
	// perUser is how many credentials a writer deposits before it goes on as another
	// user, below the quota.
	perUser = 200
)

// writersRate is how many requests all writers make in a second, at most. The short form
// asks the same of fewer.
func writersRate() int {
	if tmptest.Long() {
		return 600
	}
	return 150
}

// recoveryTime is how soon an instance has to write again once its database can. The
// short form runs beside other tests, where everything takes its time.
func recoveryTime() time.Duration {
	if tmptest.Long() {
		return 15 * time.Second
	}
	return time.Minute
}

// writers deposit credentials, each once, and remove some of them, through every
// instance and without a pause while the database is in trouble.
type writers struct {
	d         *testDatabase
	instances []*server
	count     int
	// lastFailure is when a request was last answered with 503, in nanoseconds.
	done, failed, lastFailure, slowest atomic.Int64

	end     func() // ends the writers
	running sync.WaitGroup
	mu      sync.Mutex // guards what follows
	told    []*told
}

// told is what the writer of a credential was told: the statuses, 0 where it did not
// ask.
type told struct {
	user               int64
	server, token      string
	deposited, removed int
}

// write starts two instances, and as many writers as it is told, until judge.
func write(t *testing.T, d *testDatabase, count int) *writers {
	t.Helper()
	w := &writers{d: d, count: count}
	for range 2 {
		w.instances = append(w.instances, serve(t, append(slices.Clone(d.env), "LOG_LEVEL=info", "DRAIN_GRACE=0s", "RATE_LIMIT=0")).ready(t))
	}
	ctx, cancel := context.WithCancel(t.Context())
	w.end = func() {
		cancel()
		w.running.Wait()
	}
	t.Cleanup(w.end)
	for n := range count {
		w.running.Go(func() { w.run(ctx, t, n) })
	}
	w.progress(t)
	return w
}

func (w *writers) run(ctx context.Context, t *testing.T, writer int) {
	var mine []*told
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(w.count) * time.Second / time.Duration(writersRate())):
		}
		s := w.instances[(writer+n)%len(w.instances)]
		c := &told{user: int64(1 + writer + n/perUser*w.count), server: fmt.Sprintf("%d-%d", writer, n), token: fmt.Sprintf("token-%d-%d", writer, n)}
		c.deposited = w.ask(t, http.StatusOK, func() answer { return s.deposit(t, c.user, c.server, c.token) })
		mine = append(mine, c)
		if former := mine[n/2]; n%4 == 3 {
			former.removed = w.ask(t, http.StatusNoContent, func() answer {
				return s.call(t, former.user, "DELETE", "/mcp-oauth-credentials/"+former.server, "")
			})
		}
		w.mu.Lock()
		w.told = append(w.told, c)
		w.mu.Unlock()
	}
}

// ask makes a request, which is done or, for a while, answered with 503.
func (w *writers) ask(t *testing.T, done int, request func() answer) int {
	begun := time.Now()
	got := request()
	w.slowest.Store(max(w.slowest.Load(), int64(time.Since(begun))))
	switch {
	case got.status == done:
		w.done.Add(1)
	case got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "":
		t.Errorf("a client was answered %d %s, want %d, or 503 with Retry-After", got.status, got.body, done)
	default:
		w.failed.Add(1)
		w.lastFailure.Store(time.Now().UnixNano())
	}
	return got.status
}

// progress waits until the writers are under way.
func (w *writers) progress(t *testing.T) {
	t.Helper()
	before := w.done.Load()
	pgtest.Eventually(t, "the writers make progress", func() bool { return w.done.Load() > before+int64(writersRate()/2) })
}

// recovered waits until every instance takes deposits and says that it is ready, which
// it does in time after since, and until the writers make progress.
func (w *writers) recovered(t *testing.T, since time.Time) {
	t.Helper()
	for n, s := range w.instances {
		pgtest.Eventually(t, "the instance writes again", func() bool {
			return s.readyz(t).status == http.StatusOK && s.deposit(t, 1_000_000, fmt.Sprintf("probe-%d", n), "token").status == http.StatusOK
		})
		took := time.Since(since)
		t.Logf("instance %d wrote again after %v", n, took.Round(time.Millisecond))
		if took > recoveryTime() {
			t.Errorf("instance %d wrote again after %v, want within %v", n, took, recoveryTime())
		}
	}
	w.progress(t)
	last := time.Unix(0, w.lastFailure.Load()).Sub(since)
	t.Logf("%d requests were done, %d answered 503, the last of them %v after; the slowest took %v",
		w.done.Load(), w.failed.Load(), last.Round(time.Millisecond), time.Duration(w.slowest.Load()).Round(time.Millisecond))
	if last > recoveryTime() {
		t.Errorf("a client was answered 503 %v after the database could write", last)
	}
}

// judge ends the writers and holds the database and the audit logs to what they were
// told: what was done is there, what was refused is not, and nothing else was written.
func (w *writers) judge(t *testing.T) {
	t.Helper()
	w.end()
	for n, s := range w.instances {
		select {
		case <-s.exited:
			t.Errorf("instance %d ended:\n%s", n, s.log)
		default:
			s.stop(t)
		}
	}
	v := openVault(t, w.d.env)
	outcomes := w.outcomes(t)
	rows, unknown := len(w.instances), 0
	for _, c := range w.told {
		held := w.held(t, v, c)
		if held != "" {
			rows++
		}
		deposited, removed := outcomes["deposit "+c.server], outcomes["disconnect "+c.server]
		if (deposited == "stored") != (c.deposited == http.StatusOK) || (removed == "removed" || removed == "absent") != (c.removed == http.StatusNoContent) {
			t.Errorf("the audit log says %q and %q of %+v", deposited, removed, c)
		}
		if deposited == "unknown" || removed == "unknown" {
			unknown++
		}
		if can := w.can(deposited, removed); !slices.Contains(can, held != "") {
			t.Errorf("a credential is there: %t; its writer was told %+v, the audit log says %q and %q", held != "", c, deposited, removed)
		}
	}
	if n := w.d.count(t, w.d.table); n != rows {
		t.Errorf("there are %d rows, the writers know of %d", n, rows)
	}
	t.Logf("%d credentials were asked for, %d are there, the audit log does not know what became of %d", len(w.told), rows, unknown)
}

// can is whether the credential may be there, and may not, by its outcomes.
func (w *writers) can(deposited, removed string) (there []bool) {
	if removed != "removed" && (deposited == "stored" || deposited == "unknown") {
		there = append(there, true)
	}
	if deposited != "stored" || removed == "removed" || removed == "unknown" {
		there = append(there, false)
	}
	return there
}

// held is the token that is there, or "".
func (w *writers) held(t *testing.T, v *vault, c *told) string {
	opened, err := v.credentials.Open(t.Context(), c.user, c.server)
	if errors.Is(err, credential.ErrNotFound) {
		return ""
	}
	if err != nil || string(opened.RefreshToken) != c.token {
		t.Errorf("%+v: opened %+v, %v", c, opened, err)
		return "?"
	}
	return string(opened.RefreshToken)
}

// outcomes are those of the audit lines by event and server, one for each request.
func (w *writers) outcomes(t *testing.T) map[string]string {
	t.Helper()
	outcomes := make(map[string]string)
	for _, s := range w.instances {
		for _, event := range []string{"deposit", "disconnect"} {
			for server, lines := range s.log.audits(t, event) {
				key := event + " " + server
				if outcomes[key] != "" || len(lines) != 1 && !strings.HasPrefix(server, "probe") {
					t.Errorf("%s was audited more than once: %+v", key, lines)
				}
				outcomes[key] = lines[0].Outcome
			}
		}
	}
	return outcomes
}
