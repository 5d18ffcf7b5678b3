package rotation

import (
	"cmp"
	"slices"
	"sync"

	"github.com/lockwood-kms/lockwood/credential"
)

// mostTallied bounds how many rows a tally remembers: eight bytes each.
const mostTallied = 1 << 20

// tally is which rows of a run were found not to open here, so that they need not be read
// once more to be named. It is safe for concurrent use.
type tally struct {
	mu     sync.Mutex
	runID  string
	broken bool // a row may be in it twice, or not at all
	ids    []int64
	named  []credential.Failure
}

// of makes it the tally of the run; t.mu is held.
func (t *tally) of(runID string) {
	if t.runID != runID {
		t.runID, t.broken, t.ids, t.named = runID, false, nil, nil
	}
}

// add notes a batch that was written.
func (t *tally) add(runID string, b *sealedBatch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of(runID)
	t.ids = append(t.ids, b.broken...)
	if len(t.ids) > mostTallied {
		t.broken, t.ids = true, nil
	}
	t.named = append(t.named, b.failed.named[:min(len(b.failed.named), mostFailures-len(t.named))]...)
}

// spoil notes that a range of the run is to be worked on again, in part.
func (t *tally) spoil(runID string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of(runID)
	t.broken = true
}

// upTo returns the rows with an ID up to last that do not open, if those of the run are
// known here to the last one, of which there are so many.
func (t *tally) upTo(last int64, runID string, all int64) (known failures, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.runID != runID || t.broken || int64(len(t.ids)) != all {
		return failures{}, all == 0
	}
	for _, id := range t.ids {
		if id <= last {
			known.rows++
		}
	}
	for _, f := range t.named {
		if f.ID <= last {
			known.named = append(known.named, f)
		}
	}
	slices.SortFunc(known.named, func(a, b credential.Failure) int { return cmp.Compare(a.ID, b.ID) })
	return known, true
}
