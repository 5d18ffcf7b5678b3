package rotation

import (
	"context"
	"errors"
	"time"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
)

var (
	// ErrSuperseded means that another run of re-sealing began meanwhile, so that
	// this one has nothing more to do.
	ErrSuperseded = errors.New("another re-seal has begun")

	// ErrLegacyRemains means that the store still holds legacy records, so that it
	// cannot be closed to them.
	ErrLegacyRemains = errors.New("legacy records remain")
)

// Target is what re-sealing makes of records: those of the data key with this
// ID, or legacy ones if it is zero. Every other record is stale.
type Target = envelope.KeyID

// Run is a re-seal as the store keeps it: the one that is under way, or the last.
type Run struct {
	ID        string    // random
	Target    Target    //
	MaxRate   int64     // rows a second over all instances; zero: any
	Planned   bool      // every range is in the queue
	Ended     bool      //
	Total     int64     // about how many rows are stale, by a sample; how many there were, once it has ended
	Done      int64     // rows sealed anew
	Skipped   int64     // rows that changed or went while they were sealed anew
	Failed    int64     // rows left as they are, since a record does not open
	StartedAt time.Time // by the database's clock, as UpdatedAt
	UpdatedAt time.Time
}

// Replacement is a row with its records sealed anew. Both have the same ID and
// the same columns that hold records.
type Replacement struct{ Old, New *credential.Row }

// Batch is one step of a run, written in one transaction.
type Batch struct {
	// RunID is the run that the step counts for.
	RunID string
	// Under is the data key that sealed every new record, zero if they are legacy.
	// It may be newer than the run's target.
	Under envelope.KeyID
	// Rows are by ascending ID.
	Rows []Replacement
	// Failed is how many rows of the step did not open. They are not among Rows.
	Failed int64
}

// Store is what rotation needs of a database, besides keyring.Store and
// credential.Store. Implementations are safe for concurrent use by many
// instances. Every method returns core.ErrStoreUnavailable while the database
// does not answer.
type Store interface {
	// Span returns the least and the greatest ID of a row, and false where there are
	// none.
	Span(ctx context.Context) (first, last int64, ok bool, err error)

	// SampleStale looks at the first n rows with an ID above after, and returns how many
	// there are, how many of them hold a record stale to target, and the ID of the last.
	// It reads IDs and headers only.
	SampleStale(ctx context.Context, target Target, after int64, n int) (rows, stale int, last int64, err error)

	// HasStale reports whether any row holds a record stale to target. It reads the
	// table in whatever order is the fastest.
	HasStale(ctx context.Context, target Target) (bool, error)

	// ScanStale returns up to limit rows, by ascending ID, that hold a record
	// stale to target, with after < ID <= last. Of their metadata they have what a
	// record is bound to.
	ScanStale(ctx context.Context, target Target, after, last int64, limit int) ([]credential.Row, error)

	// Reseal writes the new records of b in one transaction, and returns how many
	// rows took them. The old rows are as the store returned them; one that is not
	// exactly that any more, or is gone, is left alone and counted as skipped. No
	// other column changes, updated_at included. The data key b.Under is locked as by
	// credential.Store.Upsert: if it is not enabled, nothing is written and
	// keyring.ErrNotEnabled is returned. The counts are added to the run, and if
	// it is not the current one, or has ended, nothing is written and
	// ErrSuperseded is returned. It returns store.ErrLegacyClosed where legacy
	// records are to be written and refused.
	Reseal(ctx context.Context, b Batch) (written int64, err error)

	// BeginRun makes r, of which ID, Target and MaxRate count, the current run
	// in place of any other.
	BeginRun(ctx context.Context, r Run) error
	// GrowRun adds rows to the run's total, and with planned says that this was
	// all. It returns ErrSuperseded as Reseal does.
	GrowRun(ctx context.Context, runID string, rows int64, planned bool) error
	// EndRun marks the run as ended, if it is the current one, with how many rows do
	// not open: until then Failed counts some twice, since a range can be worked on
	// again.
	EndRun(ctx context.Context, runID string, failed int64) error
	// CurrentRun returns the current run, or the last; ok is false if there was
	// none, or where Lockwood's tables do not exist.
	CurrentRun(ctx context.Context) (r Run, ok bool, err error)
	// Pace takes the time that rows take at the run's MaxRate out of what all
	// instances share, and returns how long to wait before working on them: zero
	// without a limit. It returns ErrSuperseded as Reseal does.
	Pace(ctx context.Context, runID string, rows int) (time.Duration, error)

	// CloseLegacy closes the store to legacy records: the database refuses them
	// from then on, whoever writes them. If it holds some, it changes nothing and
	// returns how many, with ErrLegacyRemains. After core.ErrOutcomeUnknown it may
	// be closed. It may be called again.
	CloseLegacy(ctx context.Context) (remaining int64, err error)
	// OpenLegacy opens the store to legacy records again. After
	// core.ErrOutcomeUnknown it may be open. It may be called again.
	OpenLegacy(ctx context.Context) error

	// SaveReport keeps the report of the last rotation, as JSON.
	SaveReport(ctx context.Context, report []byte) error
	// LastReport returns it, or nil.
	LastReport(ctx context.Context) ([]byte, error)
}

// Range is a piece of a run: the rows with After < ID <= Last that are stale.
type Range struct {
	RunID string `json:"run_id"`
	After int64  `json:"after"`
	Last  int64  `json:"last"`
}

// Queue hands ranges to whichever instance is free. It may hand out a range
// twice, as after a crash.
type Queue interface {
	// Prepare makes the queue's tables where they do not exist.
	Prepare(ctx context.Context) error
	// Add adds ranges.
	Add(ctx context.Context, ranges []Range) error
	// Waiting returns how many ranges of the run are not done, and how many of these
	// are lost: their workers have given no sign of life for longer than a range may
	// take. Whoever waits need not wait for these, and finds their rows still stale.
	Waiting(ctx context.Context, runID string) (waiting, lost int, err error)
	// Work works on ranges, one at a time, until ctx ends. A range whose work
	// returns an error is tried again later, by whichever instance is free; so is
	// one for which work takes longer than the context it is given.
	Work(ctx context.Context, work func(context.Context, Range) error) error
}
