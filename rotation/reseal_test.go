package rotation_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/rotation"
	"github.com/lockwood-kms/lockwood/store"
)

// resealing returns a rotator like i's, whose re-seal goes through q and is cut into
// small pieces.
func (i *instance) resealing(s store.Store, q rotation.Queue) (*rotation.Resealer, *rotation.Rotator) {
	r := rotation.NewResealer(s, q, i.credentials, rotation.ResealOptions{
		Primary: func() envelope.KeyID { return i.ring.Status().Primary }, Logger: slog.New(slog.DiscardHandler), BatchRows: 5, RangeRows: 20,
	})
	return r, rotation.NewRotator(i.ring, s, i.credentials, r, nil, false)
}

// hurried is a queue that takes a range back before it is done.
type hurried struct {
	rotation.Queue
	after time.Duration
}

func (h hurried) Work(ctx context.Context, work func(context.Context, rotation.Range) error) error {
	return h.Queue.Work(ctx, func(ctx context.Context, rng rotation.Range) error {
		limited, cancel := context.WithTimeout(ctx, h.after)
		defer cancel()
		return work(limited, rng)
	})
}

// Rows that do not open stay stale. However many stand at the beginning of a range
// that takes longer than it may, what is behind them is reached, and each is counted
// once.
func TestRowsThatDoNotOpenAreNotGoneOverForEver(t *testing.T) {
	const broken, all = 15, 20
	path, i := filled(t, all)
	for u := range int64(broken) {
		row, err := i.store.Get(t.Context(), u, "server")
		if err != nil {
			t.Fatal(err)
		}
		under, _ := envelope.ParseHeader(row.RefreshTokenEnc)
		row.RefreshTokenEnc[len(row.RefreshTokenEnc)-1] ^= 1
		if err := i.store.Upsert(t.Context(), row, under, 0); err != nil {
			t.Fatal(err)
		}
	}
	// What is broken has the newest IDs by now: the others are deposited anew.
	for u := range int64(all - broken) {
		i.deposit(t, broken+u, "server", "behind")
	}
	s := openSQLite(t, path)
	_, rotator := i.resealing(s, hurried{s.Queue(slog.New(slog.DiscardHandler)), 500 * time.Millisecond})
	report, err := rotator.Rotate(t.Context(), rotation.RotateOptions{Reseal: true, MaxRate: 20})
	if err != nil {
		t.Fatal(err)
	}
	if report.Resealed.Rows != all-broken || len(report.Resealed.Failed) != broken {
		t.Errorf("%d sealed anew, %d do not open; want %d and %d", report.Resealed.Rows, len(report.Resealed.Failed), all-broken, broken)
	}
	if run, _, err := s.CurrentRun(t.Context()); run.Failed != broken || err != nil {
		t.Errorf("the run counts %d that do not open, %v", run.Failed, err)
	}
}

// What keeps records from being sealed anew, and is no outage, ends the command and
// is told, instead of being tried for ever.
func TestWhatKeepsRecordsFromBeingSealedAnewIsTold(t *testing.T) {
	path, i := filled(t, 10)
	db, err := sql.Open("sqlite3", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "CREATE TRIGGER guard BEFORE UPDATE ON ai_mcp_oauth_credentials BEGIN SELECT RAISE(ABORT, 'not here'); END"); err != nil {
		t.Fatal(err)
	}
	_, err = i.rotator.Rotate(t.Context(), rotation.RotateOptions{Reseal: true})
	if err == nil || !strings.Contains(err.Error(), "writing records sealed anew") {
		t.Fatalf("got %v, want what keeps the records from being written", err)
	}
	if _, err := db.ExecContext(t.Context(), "DROP TRIGGER guard"); err != nil {
		t.Fatal(err)
	}
	if report, err := i.rotator.Rotate(t.Context(), rotation.RotateOptions{Reseal: true}); err != nil || report.Resealed.Rows != 10 {
		t.Errorf("afterwards: %+v, %v", report, err)
	}
}

// counting is a store that counts the rows that its instance sealed anew. It writes
// none before the other one is about to write some.
type counting struct {
	store.Store
	rows         atomic.Int64
	once         sync.Once
	here, others chan struct{}
}

func (c *counting) Reseal(ctx context.Context, b rotation.Batch) (int64, error) {
	c.once.Do(func() { close(c.here) })
	select {
	case <-c.others:
	case <-ctx.Done():
		return 0, fmt.Errorf("waiting for the other instance: %w", context.Cause(ctx))
	}
	n, err := c.Store.Reseal(ctx, b)
	c.rows.Add(n)
	return n, err
}

// Ranges are worked on by whoever is free: the command and an instance share them.
func TestInstancesShareTheRanges(t *testing.T) {
	const n = 200
	path, i := filled(t, n)
	one, two := make(chan struct{}), make(chan struct{})
	command := &counting{Store: openSQLite(t, path), here: one, others: two}
	other := &counting{Store: openSQLite(t, path), here: two, others: one}
	log := slog.New(slog.DiscardHandler)
	follower, _ := startOn(t, other.Store, keyA).resealing(other, other.Queue(log))
	ctx, stop := context.WithCancel(t.Context())
	following := make(chan struct{})
	go func() { follower.Follow(ctx); close(following) }()
	t.Cleanup(func() { stop(); <-following })

	_, rotator := i.resealing(command, command.Queue(log))
	report, err := rotator.Rotate(t.Context(), rotation.RotateOptions{Reseal: true})
	if err != nil || report.Resealed.Rows != n || report.Verified.OK != report.Verified.Records {
		t.Fatalf("%+v, %v", report, err)
	}
	shares := fmt.Sprintf("%d and %d", command.rows.Load(), other.rows.Load())
	if command.rows.Load() == 0 || other.rows.Load() == 0 || command.rows.Load()+other.rows.Load() != n {
		t.Errorf("the shares of %d rows are %s", n, shares)
	}
}
