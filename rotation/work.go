package rotation

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/pause"
)

const (
	// writers is how many batches of a range are written at the same time: one is
	// on its way to the database while the other is put in place there.
	writers = 2
	// firstRows is how many rows of a range are read before the size of their records
	// is known.
	firstRows = 100
	// handBackTime is what putting the rest of a range back may take.
	handBackTime = 2 * time.Second
)

// errBehind means that this instance seals under another data key than the run is
// to reach, because it has not learnt of it yet or the ring rolled since.
var errBehind = fmt.Errorf("the ring's primary is not the target of the re-seal: %w", core.ErrUnavailable)

// WorkRange seals the stale rows of a range anew. It returns ErrSuperseded if the
// run is not the current one any more, and other errors where it is to be tried
// again: what was done is done. Where ctx ends before the range does, the rest goes
// back into the queue as a range of its own, so that rows which do not open, and so
// stay stale, are not gone over for ever.
func (r *Resealer) WorkRange(ctx context.Context, rng Range) error {
	run, ok, err := r.store.CurrentRun(ctx)
	if err == nil && (!ok || run.ID != rng.RunID || run.Ended) {
		return ErrSuperseded
	}
	behind := mark{last: rng.After}
	if err == nil {
		err = r.workRange(ctx, &run, rng, &behind)
	}
	if err != nil {
		r.tally.spoil(rng.RunID)
	}
	if err != nil && ctx.Err() != nil && behind.last > rng.After && r.handBack(ctx, Range{RunID: rng.RunID, After: behind.last, Last: rng.Last}) == nil {
		err = nil
	}
	if !errors.Is(err, ErrSuperseded) {
		r.trouble.note(err)
	}
	return err
}

// handBack puts the rest of a range back, although ctx has ended.
func (r *Resealer) handBack(ctx context.Context, rest Range) error {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), handBackTime)
	defer cancel()
	return r.queue.Add(limited, []Range{rest})
}

func (r *Resealer) workRange(ctx context.Context, run *Run, rng Range, behind *mark) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	batches := make(chan sealedBatch)
	go r.sealAhead(ctx, run, rng, batches)
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for b := range batches {
				if err := r.write(ctx, &b); err != nil {
					fail(err)
					continue
				}
				r.tally.add(run.ID, &b)
				behind.pass(b.after, b.last)
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// write writes a batch, unless it could not be sealed.
func (r *Resealer) write(ctx context.Context, b *sealedBatch) error {
	if b.err != nil {
		return b.err
	}
	_, err := r.store.Reseal(ctx, b.batch)
	return err
}

// mark is how far a range is done without a gap, while its batches end in any order.
// It is safe for concurrent use.
type mark struct {
	mu     sync.Mutex
	last   int64
	passed map[int64]int64 // batches beyond a gap, from after to last
}

func (m *mark) pass(after, last int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.passed == nil {
		m.passed = make(map[int64]int64)
	}
	m.passed[after] = last
	for next, ok := m.passed[m.last]; ok; next, ok = m.passed[m.last] {
		delete(m.passed, m.last)
		m.last = next
	}
}

// sealedBatch is a batch to be written, or why there is none.
type sealedBatch struct {
	batch       Batch
	after, last int64 // the IDs between which it has all rows that are stale
	failed      failures
	broken      []int64 // the IDs of the rows in failed
	err         error
}

// sealAhead reads and seals batch after batch of a range, one ahead of what is
// being written, until ctx ends.
func (r *Resealer) sealAhead(ctx context.Context, run *Run, rng Range, batches chan<- sealedBatch) {
	defer close(batches)
	size := batchSize{most: r.batchRows(run)}
	for after := rng.After; after < rng.Last; {
		rows, err := r.store.ScanStale(ctx, run.Target, after, rng.Last, size.rows())
		if err == nil && len(rows) == 0 {
			return
		}
		b := sealedBatch{err: err}
		if err == nil {
			size.learn(rows)
			b = r.sealRows(ctx, run, rows)
			b.after, after = after, b.last
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

// batchSize is how many rows to read at once, so that their records are no more than
// batchBytes as far as can be told from those before.
type batchSize struct {
	most int
	mean int // bytes of the records of a row; zero while that is not known
}

func (s *batchSize) rows() int {
	if s.mean == 0 {
		return min(s.most, firstRows)
	}
	return max(1, min(s.most, batchBytes/s.mean))
}

func (s *batchSize) learn(rows []credential.Row) {
	n := 0
	for i := range rows {
		n += len(rows[i].RefreshTokenEnc) + len(rows[i].ClientSecretEnc)
	}
	s.mean = max(1, n/len(rows))
}

func (r *Resealer) batchRows(run *Run) int {
	if run.MaxRate <= 0 {
		return r.opts.BatchRows
	}
	return int(min(int64(r.opts.BatchRows), max(1, run.MaxRate/4)))
}

// batchTime is how long sealing a batch may take. What is sealed by then is written, and
// the other rows become a batch of their own: where each names another data key, and a
// key service is slow, a whole one would outlast the time that a range has.
const batchTime = 2 * time.Second

// sealRows seals rows anew, at the pace of the run, up to the one that it names as the
// last: all of them, unless time runs out or one of them cannot be sealed now.
func (r *Resealer) sealRows(ctx context.Context, run *Run, rows []credential.Row) sealedBatch {
	if !run.Target.IsZero() && r.opts.Primary() != run.Target {
		return sealedBatch{err: errBehind}
	}
	if run.MaxRate > 0 {
		wait, err := r.store.Pace(ctx, run.ID, len(rows))
		if err == nil && !pause.For(ctx, wait) {
			err = fmt.Errorf("pacing: %w", context.Cause(ctx))
		}
		if err != nil {
			return sealedBatch{err: err}
		}
	}
	if err := r.sealer.Expect(ctx, rows); err != nil {
		return sealedBatch{err: err}
	}
	b := sealedBatch{batch: Batch{RunID: run.ID, Under: run.Target, Rows: make([]Replacement, 0, len(rows))}}
	for i, end := 0, r.now().Add(batchTime); i < len(rows) && (i == 0 || r.now().Before(end)); i++ {
		fresh, under, err := r.sealer.Reseal(ctx, &rows[i])
		if err == nil && under != run.Target {
			err = errBehind
		}
		reason := credential.FailureReason(err)
		switch {
		case reason != "":
			b.broken = append(b.broken, rows[i].ID)
			b.failed.add(failures{1, []credential.Failure{{ID: rows[i].ID, Column: columnOf(err), Reason: reason}}})
		case err != nil && i == 0:
			return sealedBatch{err: err}
		case err != nil:
			i = len(rows) // those before are written, and it begins the next batch
			continue
		default:
			b.batch.Rows = append(b.batch.Rows, Replacement{Old: &rows[i], New: fresh})
		}
		b.last = rows[i].ID
	}
	b.batch.Failed = b.failed.rows
	return b
}

// columnOf names the column whose record did not open.
func columnOf(err error) string {
	if e, ok := errors.AsType[*credential.RecordError](err); ok {
		return e.Column
	}
	return ""
}

// mostPasses bounds how often mop goes over the rows that are left: whoever writes to the
// database could otherwise keep it busy by changing a row again and again.
const mostPasses = 10

// mop seals anew, without the queue, the rows with an ID above after that are stale
// when the ranges are done: deposited under the old data key meanwhile, which gives a
// row a new ID, or left by a worker that was lost. It ends the run, and returns the
// rows that do not open, those known before among them.
func (r *Resealer) mop(ctx context.Context, run Run, after int64, known failures, progress func(Run)) (failures, error) {
	if after == firstID {
		stale, err := r.store.HasStale(ctx, run.Target)
		if err != nil {
			return failures{}, err
		}
		if !stale {
			return known, r.store.EndRun(ctx, run.ID, known.rows)
		}
	}
	for passes := 1; ; passes++ {
		before, ok, err := r.store.CurrentRun(ctx)
		if err != nil {
			return failures{}, err
		}
		if !ok || before.ID != run.ID {
			return failures{}, ErrSuperseded
		}
		failed, err := r.pass(ctx, &before, after)
		if err != nil {
			return failures{}, err
		}
		now, _, err := r.store.CurrentRun(ctx)
		if err != nil {
			return failures{}, err
		}
		progress(now)
		if passes == mostPasses || now.Done == before.Done && now.Skipped == before.Skipped {
			known.add(failed)
			return known, r.store.EndRun(ctx, run.ID, known.rows)
		}
	}
}

// pass goes once over the rows with an ID above after that are stale. A ring that is
// behind learns of the target within seconds, and a row that is locked is let go.
func (r *Resealer) pass(ctx context.Context, run *Run, after int64) (failures, error) {
	var failed failures
	size := batchSize{most: r.batchRows(run)}
	for retries := 0; ; {
		rows, err := r.store.ScanStale(ctx, run.Target, after, 1<<63-1, size.rows())
		if err == nil && len(rows) == 0 {
			return failed, nil
		}
		var b sealedBatch
		if err == nil {
			size.learn(rows)
			b = r.sealRows(ctx, run, rows)
			err = r.write(ctx, &b)
		}
		if err != nil && passes(err) && !errors.Is(err, ErrSuperseded) && retries < passRetries && pause.For(ctx, time.Second) {
			retries++
			continue
		}
		if err != nil {
			return failed, err
		}
		retries = 0
		failed.add(b.failed)
		after = b.last
	}
}

// passRetries is how often, a second apart, pass tries the same rows again.
const passRetries = 20
