package rotation

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/pause"
)

const (
	// rangeRows is about how many rows make a range: a second or two of work, so that
	// what lies between two is little of it, and a worker that is lost loses little.
	rangeRows = 100_000
	// batchRows is how many rows are written in a transaction. More is no faster, and
	// keeps deposits of the same rows waiting for longer.
	batchRows = 2000
	// batchBytes bounds the records of a batch, which is in memory several times over.
	batchBytes = 8 << 20
	// followInterval is how often an instance looks whether a re-seal is under way, and
	// how far it is.
	followInterval = 2 * time.Second
	// waitInterval is how often a coordinator looks how far a re-seal is.
	waitInterval = 100 * time.Millisecond
	// outage is how long a coordinator puts up with a database or a key provider
	// that does not answer.
	outage = 2 * time.Minute
	// inFlight is how many IDs below the last planned one deposits may still be on
	// their way with: an ID is given before the row is there to be seen.
	inFlight = 10_000
	// firstID is below every ID of a row.
	firstID = int64(-1 << 63)
)

// Sealer seals a credential's records anew; *credential.Service is one.
type Sealer interface {
	// Expect says that Reseal is about to be called for rows.
	Expect(ctx context.Context, rows []credential.Row) error
	Reseal(ctx context.Context, row *credential.Row) (*credential.Row, envelope.KeyID, error)
}

// ResealOptions are the settings of a Resealer.
type ResealOptions struct {
	// WritesLegacy says that the sealer makes legacy records.
	WritesLegacy bool
	// Current reports whether a legacy record opens under the key that the sealer makes
	// legacy records with. A re-seal to legacy ones seals those that do not anew too,
	// since upstream has that key and no other. Nil takes every legacy record for one.
	Current func(record []byte) bool
	// Primary returns the data key that the sealer seals under.
	Primary func() envelope.KeyID
	// BatchRows is how many rows are written in a transaction, at the most; zero is
	// 2,000. A limited rate makes batches of a quarter of a second, and large records
	// make smaller ones.
	BatchRows int
	// RangeRows is about how many rows make a range; zero is 100,000.
	RangeRows int
	// Logger receives what a person should know. Nil is slog.Default.
	Logger *slog.Logger
}

// Resealer seals the stale records of a store anew. It is safe for concurrent use.
type Resealer struct {
	store  Store
	queue  Queue
	sealer Sealer
	opts   ResealOptions
	now    func() time.Time

	trouble trouble
	tally   tally
}

// NewResealer returns a resealer. opts.Primary is required.
func NewResealer(store Store, queue Queue, sealer Sealer, opts ResealOptions) *Resealer {
	opts.BatchRows = cmp.Or(opts.BatchRows, batchRows)
	opts.RangeRows = cmp.Or(opts.RangeRows, rangeRows)
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	return &Resealer{store: store, queue: queue, sealer: sealer, opts: opts, now: time.Now}
}

// Stage is how far a re-seal to a target is.
type Stage int

// The stages.
const (
	None     Stage = iota // there is none, or it has ended
	UnderWay              // ranges of it are worked on, or wait for that
	Sealed                // every range of it is done, and what is left is to be gone over
)

// Stage returns the re-seal to target that has not ended, and how far it is.
func (r *Resealer) Stage(ctx context.Context, target Target) (Run, Stage, error) {
	run, ok, err := r.store.CurrentRun(ctx)
	if err != nil || !ok || run.Ended || run.Target != target {
		return Run{}, None, err
	}
	if !run.Planned {
		if time.Since(run.UpdatedAt) > outage { // nobody plans it any more
			return Run{}, None, nil
		}
		return run, UnderWay, nil
	}
	waiting, lost, err := r.queue.Waiting(ctx, run.ID)
	if err != nil || waiting > lost {
		return run, UnderWay, err
	}
	return run, Sealed, nil
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

// Follow works on whatever re-seal is under way, on its instances' behalf, until
// ctx ends.
func (r *Resealer) Follow(ctx context.Context) {
	var finished, told string // the run that nothing is left of; what was logged last
	for pause.For(ctx, followInterval) {
		run, ok, err := r.store.CurrentRun(ctx)
		if err == nil && (!ok || run.Ended || run.ID == finished || run.Target.IsZero() != r.opts.WritesLegacy) {
			told = ""
			continue
		}
		if err == nil {
			if told == "" {
				r.opts.Logger.Info("working on a re-seal", "run", run.ID, "rows", run.Total)
			}
			var lost int
			if lost, err = r.attend(ctx, run, follower, func(Run) {}); err == nil && lost > 0 {
				continue // whose workers may only have been slow
			}
		}
		switch {
		case err == nil, errors.Is(err, ErrSuperseded), errors.Is(err, errAbandoned):
			finished = run.ID
		case ctx.Err() == nil && err.Error() != told:
			told = err.Error()
			r.opts.Logger.Warn("this instance cannot work on a re-seal now, and will try again", "error", err)
		}
	}
}

// Wait plans the run and works on it too, until every range of it is done. It returns
// the ID after which rows may still be stale that nobody deposited since, the first
// there is if the worker of a range was lost.
//
// It returns ErrSuperseded if another run began, or the ring rolled, meanwhile; and
// what keeps records from being sealed anew here, at once if that is no outage, and
// else once nothing has moved for two minutes.
func (r *Resealer) Wait(ctx context.Context, run Run, progress func(Run)) (after int64, err error) {
	ctx, end := context.WithCancelCause(ctx)
	var planning sync.WaitGroup
	planning.Go(func() {
		last, err := r.Plan(ctx, run)
		if err != nil {
			end(err)
		}
		after = last
	})
	lost, err := r.attend(ctx, run, coordinator, progress)
	end(nil)
	planning.Wait()
	if lost > 0 || after < firstID+inFlight {
		return firstID, err
	}
	return after - inFlight, err
}
