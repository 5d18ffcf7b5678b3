// Package queue hands the ranges of a re-seal to whichever instance is free. It
// is a thin layer over River, which keeps jobs in the database that the vault is
// in anyway, on PostgreSQL and SQLite alike: what a lost worker held is found and
// given out again, and a failure is tried again, without a line of that here.
//
// River runs only while a re-seal is under way, and its tables are made when the
// first one begins. It polls and never listens, so that it works behind a
// transaction pooler; and each client works on one range at a time, since one
// worker comes close to what the database can write.
package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"

	"github.com/lockwood-kms/lockwood/rotation"
)

const (
	// name is that of the queue, and of the only kind of job in it.
	name = "lockwood_reseal"

	// rangeTimeout is how long a range may be worked on before it goes back into
	// the queue. What was done of it is done.
	rangeTimeout = 20 * time.Second
	// handBack is how long before that the work is told to stop.
	handBack = 2 * time.Second
	// lostAfter is when a range whose worker never reported counts as lost.
	lostAfter = rangeTimeout + 5*time.Second

	pollInterval = 100 * time.Millisecond
	fetchPause   = 5 * time.Millisecond
	stopTimeout  = 5 * time.Second

	// maxWaiting is how many unfinished ranges Waiting looks at.
	maxWaiting = 10_000
)

// Options are the settings of a queue.
type Options struct {
	// Schema is where the tables are, on PostgreSQL; empty for the default.
	Schema string
	// Logger receives what River says, at debug level. Nil is slog.Default.
	Logger *slog.Logger
	// RangeTimeout is how long a range may be worked on; zero is 20 s.
	RangeTimeout time.Duration
}

// New returns a queue over a database that a driver of River reaches.
func New[TTx any](driver riverdriver.Driver[TTx], opts Options) rotation.Queue {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.RangeTimeout <= 0 {
		opts.RangeTimeout = rangeTimeout
	}
	opts.Logger = slog.New(quiet{opts.Logger.Handler()})
	return &queue[TTx]{driver: driver, opts: opts}
}

type queue[TTx any] struct {
	driver riverdriver.Driver[TTx]
	opts   Options

	once     sync.Once
	inserter *river.Client[TTx]
	err      error
}

// job is a range as River keeps it.
type job struct{ rotation.Range }

// Kind implements river.JobArgs.
func (job) Kind() string { return name }

// prepareAttempts bounds the tries of Prepare, where several at once make the same
// tables and all but one fail.
const prepareAttempts = 5

// Prepare implements rotation.Queue.
func (q *queue[TTx]) Prepare(ctx context.Context) error {
	if strings.Contains(q.opts.Schema, "$") {
		return fmt.Errorf("preparing the queue: records cannot be sealed anew in schema %q: the queue's library takes letters, digits and underscores only; rename the schema", q.opts.Schema)
	}
	migrator, err := rivermigrate.New(q.driver, &rivermigrate.Config{Schema: q.opts.Schema, Logger: q.opts.Logger})
	if err != nil {
		return fmt.Errorf("preparing the queue: %w", err)
	}
	var errs []error
	for range prepareAttempts {
		state, err := migrator.Validate(ctx, nil)
		if err == nil && state.OK {
			return nil
		}
		_, migrateErr := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
		if migrateErr == nil {
			return nil
		}
		errs = append(errs, migrateErr)
		select {
		case <-ctx.Done():
			return fmt.Errorf("preparing the queue: %w", context.Cause(ctx))
		case <-time.After(pollInterval + rand.N(pollInterval)):
		}
	}
	return fmt.Errorf("preparing the queue: %w", errs[len(errs)-1])
}

// client returns a client that inserts and looks, and works on nothing.
func (q *queue[TTx]) client() (*river.Client[TTx], error) {
	q.once.Do(func() {
		q.inserter, q.err = river.NewClient(q.driver, &river.Config{Schema: q.opts.Schema, Logger: q.opts.Logger})
	})
	return q.inserter, q.err
}

// Add implements rotation.Queue.
func (q *queue[TTx]) Add(ctx context.Context, ranges []rotation.Range) error {
	client, err := q.client()
	if err != nil {
		return fmt.Errorf("adding ranges: %w", err)
	}
	params := make([]river.InsertManyParams, len(ranges))
	for i, r := range ranges {
		params[i] = river.InsertManyParams{Args: job{r}, InsertOpts: &river.InsertOpts{Queue: name, MaxAttempts: math.MaxInt16}}
	}
	if len(params) > 0 {
		_, err = client.InsertManyFast(ctx, params)
	}
	if err != nil {
		return fmt.Errorf("adding ranges: %w", err)
	}
	return nil
}

// Waiting implements rotation.Queue.
func (q *queue[TTx]) Waiting(ctx context.Context, runID string) (waiting, lost int, err error) {
	client, err := q.client()
	if err != nil {
		return 0, 0, err
	}
	list, err := client.JobList(ctx, river.NewJobListParams().Kinds(name).First(maxWaiting).States(
		rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRetryable, rivertype.JobStateRunning, rivertype.JobStateScheduled))
	if err != nil {
		return 0, 0, fmt.Errorf("counting ranges: %w", err)
	}
	for _, j := range list.Jobs {
		if runOf(j) != runID {
			continue
		}
		waiting++
		if j.State == rivertype.JobStateRunning && j.AttemptedAt != nil && time.Since(*j.AttemptedAt) > q.opts.RangeTimeout+lostAfter-rangeTimeout {
			lost++
		}
	}
	if waiting == 0 && len(list.Jobs) == maxWaiting {
		waiting = 1 // there may be one beyond those of earlier runs
	}
	return waiting, lost, nil
}

// Work implements rotation.Queue.
func (q *queue[TTx]) Work(ctx context.Context, work func(context.Context, rotation.Range) error) error {
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{ctx: ctx, work: work, timeout: q.opts.RangeTimeout})
	client, err := river.NewClient(q.driver, &river.Config{
		Schema: q.opts.Schema, Logger: q.opts.Logger, Workers: workers,
		Queues:   map[string]river.QueueConfig{name: {MaxWorkers: 1, FetchCooldown: fetchPause, FetchPollInterval: pollInterval}},
		PollOnly: true, JobTimeout: q.opts.RangeTimeout, RescueStuckJobsAfter: q.opts.RangeTimeout + lostAfter - rangeTimeout,
		CompletedJobRetentionPeriod: time.Minute, CancelledJobRetentionPeriod: time.Minute, DiscardedJobRetentionPeriod: time.Minute,
		RetryPolicy: soon{}, ReindexerSchedule: river.NeverSchedule(),
	})
	if err != nil {
		return fmt.Errorf("working on ranges: %w", err)
	}
	// The client's own context ends with Stop, so that a range that is given back
	// can still be written.
	if err := client.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("working on ranges: %w", err)
	}
	<-ctx.Done()
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := client.Stop(limited); err != nil {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		err = client.StopAndCancel(limited)
		if err != nil {
			return fmt.Errorf("stopping the work on ranges: %w", err)
		}
	}
	return nil
}

// worker works on one range at a time.
type worker struct {
	river.WorkerDefaults[job]
	ctx     context.Context // ends when the queue's user wants no more work done
	work    func(context.Context, rotation.Range) error
	timeout time.Duration
}

// Work implements river.Worker. A range that has to stop, because it was told to
// or because its time is up, goes back into the queue at once.
func (w *worker) Work(ctx context.Context, j *river.Job[job]) error {
	if w.ctx.Err() != nil {
		return river.JobSnooze(0)
	}
	limited, cancel := context.WithTimeout(ctx, w.timeout-min(handBack, w.timeout/10))
	defer cancel()
	defer context.AfterFunc(w.ctx, cancel)()
	err := w.work(limited, j.Args.Range)
	switch {
	case errors.Is(err, rotation.ErrSuperseded):
		return nil
	case err != nil && limited.Err() != nil:
		return river.JobSnooze(0)
	}
	return err
}

// soon tries again after about a second: what fails is a database or a key
// provider that is away.
type soon struct{}

// NextRetry implements river.ClientRetryPolicy.
func (soon) NextRetry(*rivertype.JobRow) time.Time {
	return time.Now().Add(time.Second + rand.N(time.Second/2))
}

// quiet passes records on at debug level: River's words are not ours.
type quiet struct{ slog.Handler }

// Enabled implements slog.Handler.
func (h quiet) Enabled(ctx context.Context, _ slog.Level) bool {
	return h.Handler.Enabled(ctx, slog.LevelDebug)
}

// Handle implements slog.Handler.
func (h quiet) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{h.Handler.WithAttrs(attrs)} }

// WithGroup implements slog.Handler.
func (h quiet) WithGroup(group string) slog.Handler { return quiet{h.Handler.WithGroup(group)} }

// runOf returns the run that a job belongs to.
func runOf(j *rivertype.JobRow) string {
	var r rotation.Range
	if json.Unmarshal(j.EncodedArgs, &r) != nil {
		return ""
	}
	return r.RunID
}
