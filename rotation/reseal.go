package rotation

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
)

const (
	// rangeRows is how many stale rows make a range.
	rangeRows = 50_000
	// writers is how many batches of a range are written at the same time: one is
	// on its way to the database while the other is put in place there.
	writers = 2
	// planPause is how many times as long as the last range took to find a limited
	// run waits before the next.
	planPause = 4
	// followInterval is how often an instance looks whether a re-seal is under way.
	followInterval = 2 * time.Second
	// waitInterval is how often a coordinator looks how far a re-seal is.
	waitInterval = 100 * time.Millisecond
	// outage is how long a coordinator puts up with a database or a key provider
	// that does not answer.
	outage = 2 * time.Minute
	// behindLimit is how long an instance may take to learn of the data key that a
	// re-seal is to reach. One that has another for longer is past it.
	behindLimit = 20 * time.Second
)

// errBehind means that this instance seals under another data key than the run is
// to reach, because it has not learnt of it yet or the ring rolled since.
var errBehind = fmt.Errorf("the ring's primary is not the target of the re-seal: %w", core.ErrUnavailable)

// Sealer seals a credential's records anew; *credential.Service is one.
type Sealer interface {
	Reseal(ctx context.Context, row *credential.Row) (*credential.Row, envelope.KeyID, error)
}

// ResealOptions are the settings of a Resealer.
type ResealOptions struct {
	// WritesLegacy says that the sealer makes legacy records.
	WritesLegacy bool
	// Primary returns the data key that the sealer seals under.
	Primary func() envelope.KeyID
	// BatchRows is how many rows are written in a transaction; zero is 5,000. A
	// limited rate makes batches of a quarter of a second.
	BatchRows int
	// Logger receives what a person should know. Nil is slog.Default.
	Logger *slog.Logger
}

// Resealer seals the stale records of a store anew. It is safe for concurrent use.
type Resealer struct {
	store  Store
	queue  Queue
	sealer Sealer
	opts   ResealOptions
}

// NewResealer returns a resealer. opts.Primary is required.
func NewResealer(store Store, queue Queue, sealer Sealer, opts ResealOptions) *Resealer {
	opts.BatchRows = cmp.Or(opts.BatchRows, 5000)
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	return &Resealer{store: store, queue: queue, sealer: sealer, opts: opts}
}

// Begin begins a run to target in place of any other. It is to be planned, by Plan
// or by Wait.
func (r *Resealer) Begin(ctx context.Context, target Target, maxRate int64) (Run, error) {
	run := Run{ID: rand.Text(), Target: target, MaxRate: maxRate}
	if err := r.queue.Prepare(ctx); err != nil {
		return run, err
	}
	return run, r.store.BeginRun(ctx, run)
}

// Plan cuts the rows that are stale into ranges and puts each into the queue, where
// others begin to work on it at once. A run with a limit is planned slowly: that
// reads the whole table, which deposits would feel.
func (r *Resealer) Plan(ctx context.Context, run Run) error {
	wellAt := time.Now()
	for after := int64(-1 << 63); ; {
		begun := time.Now()
		last, n, err := r.planRange(ctx, run, after)
		pause := time.Duration(0)
		switch {
		case err == nil && n == 0:
			return nil
		case err == nil:
			after, wellAt = last, time.Now()
			if run.MaxRate > 0 {
				pause = planPause * time.Since(begun)
			}
		case errors.Is(err, ErrSuperseded) || ctx.Err() != nil || time.Since(wellAt) > outage:
			return err
		default:
			pause = time.Second
		}
		if !sleep(ctx, pause) {
			return fmt.Errorf("planning the re-seal: %w", context.Cause(ctx))
		}
	}
}

// planRange puts the first range above after into the queue, and returns its last
// ID and how many rows it has. Where there are none, all is planned.
func (r *Resealer) planRange(ctx context.Context, run Run, after int64) (last int64, n int, err error) {
	last, n, err = r.store.CutStale(ctx, run.Target, after, rangeRows)
	if err == nil && n > 0 {
		err = r.queue.Add(ctx, []Range{{RunID: run.ID, After: after, Last: last}})
	}
	if err == nil {
		err = r.store.GrowRun(ctx, run.ID, int64(n), n == 0)
	}
	return last, n, err
}

// Follow works on whatever re-seal is under way, on its instances' behalf, until
// ctx ends.
func (r *Resealer) Follow(ctx context.Context) {
	var finished string // the run that nothing is left of
	for away := false; sleep(ctx, followInterval); {
		run, ok, err := r.store.CurrentRun(ctx)
		if err != nil && !away && ctx.Err() == nil {
			r.opts.Logger.Warn("this instance cannot see whether a re-seal is under way", "error", err)
		}
		away = err != nil
		if err != nil || !ok || run.Ended || run.ID == finished || run.Target.IsZero() != r.opts.WritesLegacy {
			continue
		}
		r.opts.Logger.Info("working on a re-seal", "run", run.ID, "rows", run.Total)
		if err := r.attend(ctx, run, func(Run) {}); err != nil && ctx.Err() == nil && !errors.Is(err, ErrSuperseded) {
			r.opts.Logger.Warn("the work on a re-seal was interrupted; it goes on", "error", err)
			continue
		}
		finished = run.ID
	}
}

// Wait plans the run and works on it too, until every range of it is done. It
// returns ErrSuperseded if another run began, or the ring rolled, meanwhile.
func (r *Resealer) Wait(ctx context.Context, run Run, progress func(Run)) error {
	ctx, end := context.WithCancelCause(ctx)
	var planning sync.WaitGroup
	planning.Go(func() {
		if err := r.Plan(ctx, run); err != nil {
			end(err)
		}
	})
	err := r.attend(ctx, run, progress)
	end(nil)
	planning.Wait()
	return err
}

// attend works on the queue until nothing of the run waits in it.
func (r *Resealer) attend(ctx context.Context, run Run, progress func(Run)) error {
	working, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- r.queue.Work(working, r.WorkRange) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			r.opts.Logger.Warn("the work on a re-seal did not end well; another instance takes it up", "error", err)
		}
	}()
	wellAt, aheadAt := time.Now(), time.Now()
	for sleep(ctx, waitInterval) {
		done, err := r.look(ctx, run, progress)
		if err == nil {
			wellAt = time.Now()
		}
		if run.Target.IsZero() || r.opts.Primary() == run.Target {
			aheadAt = time.Now()
		}
		switch {
		case done:
			return err
		case time.Since(wellAt) > outage:
			return err
		case time.Since(aheadAt) > behindLimit:
			return fmt.Errorf("%w: the ring has another primary data key by now; run it again", ErrSuperseded)
		}
	}
	return fmt.Errorf("waiting for the re-seal: %w", context.Cause(ctx))
}

// look reports whether nothing is left to wait for. Otherwise err is why that is
// not known.
func (r *Resealer) look(ctx context.Context, run Run, progress func(Run)) (done bool, err error) {
	now, ok, err := r.store.CurrentRun(ctx)
	if err != nil {
		return false, err
	}
	if !ok || now.ID != run.ID {
		return true, ErrSuperseded
	}
	progress(now)
	if now.Ended {
		return true, nil
	}
	if !now.Planned {
		return false, nil
	}
	n, err := r.queue.Waiting(ctx, run.ID)
	return n == 0 && err == nil, err
}

// WorkRange seals the stale rows of a range anew. It returns ErrSuperseded if the
// run is not the current one any more, and other errors where it is to be tried
// again: what was done is done.
func (r *Resealer) WorkRange(ctx context.Context, rng Range) error {
	run, ok, err := r.store.CurrentRun(ctx)
	if err != nil {
		return err
	}
	if !ok || run.ID != rng.RunID || run.Ended {
		return ErrSuperseded
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	batches := make(chan sealedBatch)
	go r.sealAhead(ctx, &run, rng, batches)
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for b := range batches {
				if err := r.write(ctx, b); err != nil {
					fail(err)
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// write writes a batch, unless it could not be sealed.
func (r *Resealer) write(ctx context.Context, b sealedBatch) error {
	if b.err != nil {
		return b.err
	}
	_, err := r.store.Reseal(ctx, b.batch)
	return err
}

// sealedBatch is a batch to be written, or why there is none.
type sealedBatch struct {
	batch  Batch
	failed []credential.Failure
	err    error
}

// sealAhead reads and seals batch after batch of a range, one ahead of what is
// being written, until ctx ends.
func (r *Resealer) sealAhead(ctx context.Context, run *Run, rng Range, batches chan<- sealedBatch) {
	defer close(batches)
	for after := rng.After; after < rng.Last; {
		rows, err := r.store.ScanStale(ctx, run.Target, after, rng.Last, r.batchRows(run))
		if err == nil && len(rows) == 0 {
			return
		}
		var b sealedBatch
		if b.err = err; err == nil {
			b = r.sealRows(ctx, run, rows)
			after = rows[len(rows)-1].ID
		}
		select {
		case batches <- b:
		case <-ctx.Done():
			return
		}
		if b.err != nil {
			return
		}
	}
}

func (r *Resealer) batchRows(run *Run) int {
	if run.MaxRate <= 0 {
		return r.opts.BatchRows
	}
	return int(min(int64(r.opts.BatchRows), max(1, run.MaxRate/4)))
}

// resealRows seals rows anew and writes them, and returns those that do not open.
func (r *Resealer) resealRows(ctx context.Context, run *Run, rows []credential.Row) ([]credential.Failure, error) {
	b := r.sealRows(ctx, run, rows)
	if b.err != nil {
		return nil, b.err
	}
	_, err := r.store.Reseal(ctx, b.batch)
	return b.failed, err
}

// sealRows seals rows anew, at the pace of the run.
func (r *Resealer) sealRows(ctx context.Context, run *Run, rows []credential.Row) sealedBatch {
	if !run.Target.IsZero() && r.opts.Primary() != run.Target {
		return sealedBatch{err: errBehind}
	}
	if run.MaxRate > 0 {
		pause, err := r.store.Pace(ctx, run.ID, len(rows))
		if err == nil && !sleep(ctx, pause) {
			err = fmt.Errorf("pacing: %w", context.Cause(ctx))
		}
		if err != nil {
			return sealedBatch{err: err}
		}
	}
	batch := Batch{RunID: run.ID, Under: run.Target, Rows: make([]Replacement, 0, len(rows))}
	var failed []credential.Failure
	for i := range rows {
		fresh, under, err := r.sealer.Reseal(ctx, &rows[i])
		if reason := credential.FailureReason(err); reason != "" {
			failed = append(failed, credential.Failure{ID: rows[i].ID, Column: columnOf(err), Reason: reason})
			continue
		}
		if err != nil {
			return sealedBatch{err: err}
		}
		if under != run.Target {
			return sealedBatch{err: errBehind}
		}
		batch.Rows = append(batch.Rows, Replacement{Old: &rows[i], New: fresh})
	}
	batch.Failed = int64(len(failed))
	return sealedBatch{batch: batch, failed: failed}
}

// columnOf names the column whose record did not open.
func columnOf(err error) string {
	if e, ok := errors.AsType[*credential.RecordError](err); ok {
		return e.Column
	}
	return ""
}

// Mop seals anew, without the queue, the rows that are stale after the ranges are
// done: deposited under the old data key meanwhile, or left by a worker that was
// lost. It ends the run, and returns the records that do not open.
func (r *Resealer) Mop(ctx context.Context, run Run, progress func(Run)) ([]credential.Failure, error) {
	stale, err := r.store.HasStale(ctx, run.Target)
	if err != nil {
		return nil, err
	}
	if !stale {
		return nil, r.store.EndRun(ctx, run.ID, 0)
	}
	for {
		before, ok, err := r.store.CurrentRun(ctx)
		if err != nil {
			return nil, err
		}
		if !ok || before.ID != run.ID {
			return nil, ErrSuperseded
		}
		failed, err := r.pass(ctx, &before)
		if err != nil {
			return nil, err
		}
		after, _, err := r.store.CurrentRun(ctx)
		if err != nil {
			return nil, err
		}
		progress(after)
		if after.Done == before.Done && after.Skipped == before.Skipped {
			return failed, r.store.EndRun(ctx, run.ID, 0)
		}
	}
}

// pass goes over all rows that are stale once. A ring that is behind learns of the
// target within seconds.
func (r *Resealer) pass(ctx context.Context, run *Run) ([]credential.Failure, error) {
	var failed []credential.Failure
	behind := 0
	for after := int64(-1 << 63); ; {
		rows, err := r.store.ScanStale(ctx, run.Target, after, 1<<63-1, r.batchRows(run))
		if err != nil || len(rows) == 0 {
			return failed, err
		}
		more, err := r.resealRows(ctx, run, rows)
		if (errors.Is(err, errBehind) || errors.Is(err, keyring.ErrNotEnabled)) && behind < 10 && sleep(ctx, time.Second) {
			behind++
			continue
		}
		if err != nil {
			return failed, err
		}
		failed = append(failed, more...)
		after = rows[len(rows)-1].ID
	}
}

// sleep waits for d and reports whether it did so to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
