package queue_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/ncruces/go-sqlite3/driver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/rotation"
	"github.com/lockwood-kms/lockwood/rotation/queue"
)

// each runs f with a function that makes further queues on one database, of either
// kind.
func each(t *testing.T, f func(t *testing.T, open func(opts queue.Options) rotation.Queue)) {
	t.Run("sqlite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "queue.db")
		f(t, func(opts queue.Options) rotation.Queue {
			return queue.New(riversqlite.New(openSQLite(t, path)), opts)
		})
	})
	t.Run("postgres behind a transaction pooler", func(t *testing.T) {
		cluster := pgtest.Shared(t)
		url := cluster.NewDatabase(t)
		pgtest.Exec(t, url, `CREATE SCHEMA "Vault_1"`)
		url = cluster.PgBouncer(t, 4)(url)
		f(t, func(opts queue.Options) rotation.Queue {
			cfg, err := pgxpool.ParseConfig(url)
			if err != nil {
				t.Fatal(err)
			}
			cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe // as package postgres
			pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			opts.Schema = "Vault_1"
			return queue.New(riverpgxv5.New(pool), opts)
		})
	})
}

func openSQLite(t *testing.T, path string) *sql.DB {
	db, err := driver.Open("file:" + path + "?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_timefmt=sqlite&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func quietly(opts queue.Options) queue.Options {
	opts.Logger = slog.New(slog.DiscardHandler)
	return opts
}

func ranges(run string, n int) []rotation.Range {
	var list []rotation.Range
	for i := range n {
		list = append(list, rotation.Range{RunID: run, After: int64(i), Last: int64(i + 1)})
	}
	return list
}

// begin works on q until the test ends, and returns a function that stops sooner.
func begin(t *testing.T, q rotation.Queue, work func(context.Context, rotation.Range) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() {
		if err := q.Work(ctx, work); err != nil {
			t.Errorf("Work: %v", err)
		}
	})
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); ended.Wait() }) }
	t.Cleanup(stop)
	return stop
}

func empty(t *testing.T, q rotation.Queue, run string) func() bool {
	return func() bool {
		n, _, err := q.Waiting(t.Context(), run)
		if err != nil {
			t.Fatal(err)
		}
		return n == 0
	}
}

// Several instances prepare at once, and work: each range is done once, and one
// whose work fails is done again.
func TestEveryRangeIsDone(t *testing.T) {
	each(t, func(t *testing.T, open func(queue.Options) rotation.Queue) {
		var queues []rotation.Queue
		var preparing sync.WaitGroup
		for range 3 {
			q := open(quietly(queue.Options{}))
			queues = append(queues, q)
			preparing.Go(func() {
				if err := q.Prepare(t.Context()); err != nil {
					t.Errorf("Prepare: %v", err)
				}
			})
		}
		preparing.Wait()
		if err := queues[0].Add(t.Context(), ranges("run", 30)); err != nil {
			t.Fatal(err)
		}
		if n, _, err := queues[1].Waiting(t.Context(), "run"); n != 30 || err != nil {
			t.Fatalf("Waiting = %d, %v", n, err)
		}
		if n, _, err := queues[1].Waiting(t.Context(), "another"); n != 0 || err != nil {
			t.Fatalf("Waiting for another run = %d, %v", n, err)
		}
		var mu sync.Mutex
		done := make(map[int64]int)
		failed := false
		for _, q := range queues {
			begin(t, q, func(_ context.Context, r rotation.Range) error {
				mu.Lock()
				defer mu.Unlock()
				if r.After == 7 && !failed {
					failed = true
					return errors.New("the database is away")
				}
				done[r.After]++
				return nil
			})
		}
		pgtest.Eventually(t, "everything is done", empty(t, queues[0], "run"))
		mu.Lock()
		defer mu.Unlock()
		for i := range int64(30) {
			if done[i] != 1 {
				t.Errorf("range %d was done %d times", i, done[i])
			}
		}
		if !failed {
			t.Error("no work failed")
		}
	})
}

// A range that takes too long, as with a low rate, goes on later and is never given
// up; one of a run that another took the place of is dropped.
func TestARangeThatTakesLong(t *testing.T) {
	each(t, func(t *testing.T, open func(queue.Options) rotation.Queue) {
		q := open(quietly(queue.Options{RangeTimeout: 500 * time.Millisecond}))
		if err := errors.Join(q.Prepare(t.Context()), q.Add(t.Context(), ranges("slow", 1)), q.Add(t.Context(), ranges("old", 1))); err != nil {
			t.Fatal(err)
		}
		var slow, old atomic.Int32
		begin(t, q, func(ctx context.Context, r rotation.Range) error {
			if r.RunID == "old" {
				old.Add(1)
				return fmt.Errorf("looking: %w", rotation.ErrSuperseded)
			}
			if slow.Add(1) < 4 {
				<-ctx.Done()
				return context.Cause(ctx)
			}
			return nil
		})
		pgtest.Eventually(t, "the slow range is done", empty(t, q, "slow"))
		pgtest.Eventually(t, "the old range is gone", empty(t, q, "old"))
		if slow.Load() != 4 || old.Load() != 1 {
			t.Errorf("the slow range was begun %d times, the old one %d", slow.Load(), old.Load())
		}
	})
}

// Who stops gives back at once what they were at.
func TestStopping(t *testing.T) {
	each(t, func(t *testing.T, open func(queue.Options) rotation.Queue) {
		q := open(quietly(queue.Options{}))
		if err := errors.Join(q.Prepare(t.Context()), q.Add(t.Context(), ranges("run", 1))); err != nil {
			t.Fatal(err)
		}
		begun := make(chan struct{})
		stop := begin(t, q, func(ctx context.Context, _ rotation.Range) error {
			close(begun)
			<-ctx.Done()
			return context.Cause(ctx)
		})
		<-begun
		stop()
		if n, _, err := q.Waiting(t.Context(), "run"); n != 1 || err != nil {
			t.Fatalf("after stopping, Waiting = %d, %v", n, err)
		}
		begin(t, open(quietly(queue.Options{})), func(context.Context, rotation.Range) error { return nil })
		pgtest.Eventually(t, "another instance has done it", empty(t, q, "run"))
	})
}
