package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockwood-kms/lockwood/internal/pause"
)

const (
	// sampleRows is how many rows are looked at to tell how dense IDs are, and how many
	// rows stale, where a range begins.
	sampleRows = 200
	// leastRanges bounds a range to this part of all IDs, should they be dense only
	// where no sample was taken.
	leastRanges = 64
)

// Plan cuts the table into ranges of IDs and puts each into the queue, where others
// begin to work on it at once. It looks at a sample of each range, so that a large
// table is not read once more than it has to be. It returns the last ID of the last
// range.
func (r *Resealer) Plan(ctx context.Context, run Run) (last int64, err error) {
	c := cutter{r: r, run: run}
	for wellAt := time.Now(); ; {
		done, err := c.cut(ctx)
		wait := time.Duration(0)
		switch {
		case err == nil && done:
			return c.last, nil
		case err == nil:
			wellAt = time.Now()
		case errors.Is(err, ErrSuperseded) || ctx.Err() != nil || time.Since(wellAt) > outage:
			return c.last, err
		default:
			wait = time.Second
		}
		if !pause.For(ctx, wait) {
			return c.last, fmt.Errorf("planning the re-seal: %w", context.Cause(ctx))
		}
	}
}

// cutter cuts a table into ranges, one after another.
type cutter struct {
	r   *Resealer
	run Run

	known       bool
	first, last int64 // of all IDs, when it began
	after       int64 // the last ID of the range that was cut last
}

// cut cuts one range, or says that there are no more. It may be called again after an
// error.
func (c *cutter) cut(ctx context.Context) (done bool, err error) {
	if !c.known {
		first, last, ok, err := c.r.store.Span(ctx)
		if err != nil {
			return false, err
		}
		if !ok {
			first, last = 1, 0
		}
		c.known, c.first, c.last, c.after = true, first, last, max(first, firstID+1)-1
	}
	if c.after >= c.last {
		return true, c.r.store.GrowRun(ctx, c.run.ID, 0, true)
	}
	n := min(sampleRows, c.r.opts.RangeRows)
	rows, stale, seen, err := c.r.store.SampleStale(ctx, c.run.Target, c.after, n)
	if err != nil {
		return false, err
	}
	end, share := c.last, 1.0
	if rows == n {
		end, share = c.end(seen, n)
	}
	if err := c.r.queue.Add(ctx, []Range{{RunID: c.run.ID, After: c.after, Last: end}}); err != nil {
		return false, err
	}
	if err := c.r.store.GrowRun(ctx, c.run.ID, int64(float64(stale)*share), false); err != nil {
		return false, err
	}
	c.after = end
	return false, nil
}

// end returns where the range ends whose first n rows end at seen, and how many times
// as many IDs it has as these. IDs can be anything, so numbers of them may
// not fit an integer.
func (c *cutter) end(seen int64, n int) (end int64, share float64) {
	rows := float64(c.r.opts.RangeRows)
	all, left, sampled := distance(c.first, c.last), distance(c.after, c.last), distance(c.after, seen)
	width := max(rows, min(sampled*rows/float64(n), all/leastRanges))
	if uint64(c.last)-uint64(c.after) <= uint64(width) { // exactly, which the rounded numbers are not
		return c.last, left / sampled
	}
	return c.after + int64(width), width / sampled
}

// distance returns how many IDs lie between two, and one at the least.
func distance(from, to int64) float64 { return max(1, float64(to)-float64(from)) }
