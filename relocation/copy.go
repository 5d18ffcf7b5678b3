package relocation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/fleet"
	"github.com/lockwood-kms/lockwood/rotation"
)

// The reasons for which a store is not copied.
var (
	// ErrNotEmpty means that the target holds something already.
	ErrNotEmpty = errors.New("the target is not empty")
	// ErrOtherCopy means that the source or the target is part of another copy.
	ErrOtherCopy = errors.New("it is part of another copy")
	// ErrResealing means that a re-seal of the source is not finished.
	ErrResealing = errors.New("a re-seal is not finished")
	// ErrUnfit means that the target cannot hold a credential as it is.
	ErrUnfit = errors.New("the target cannot hold a credential")
	// ErrDiffers means that what was copied is not what is in the source.
	ErrDiffers = errors.New("the copy is not the same as the source")
	// ErrNothingToCancel means that the store is not the source of a copy.
	ErrNothingToCancel = errors.New("the store is not the source of a copy")
	// ErrNothingToTake means that the store is not the unfinished target of a copy.
	ErrNothingToTake = errors.New("the store is not an unfinished copy")
	// ErrHandedOver means that the copy was handed over, so that only who says so again
	// takes the source back.
	ErrHandedOver = errors.New("the store has moved already")
)

// Stores is what a Copier needs of a database; store.Store is one.
type Stores interface {
	Store
	keyring.Store
	credential.Store
	fleet.Store
	CurrentRun(ctx context.Context) (rotation.Run, bool, error)
	CloseLegacy(ctx context.Context) (remaining int64, err error)
	SaveReport(ctx context.Context, report []byte) error
	LastReport(ctx context.Context) ([]byte, error)
	BinaryColumns(ctx context.Context) ([]credential.Column, error)
}

// Place is a database of a copy.
type Place struct {
	Store Stores
	// Name says where it is, for people. It holds no password.
	Name string
}

// Options are the optional settings of a Copier; the zero value works.
type Options struct {
	// Migrate lays down the schema of the target with that store ID. takesLegacy says
	// that it has to take legacy records. It may be called again.
	Migrate func(ctx context.Context, storeID string, takesLegacy bool) error
	// Narrow says that the columns of the target have the lengths and the encoding that
	// upstream gave them, which those of SQLite do not enforce.
	Narrow bool
	// Rows is how many rows are read, and written in one transaction; zero is 500.
	Rows int
	// Progress, if not nil, is told how many credentials of about how many were copied,
	// or compared.
	Progress func(step Step, done, of int64)
}

// Step is what a Copier does.
type Step string

// The steps, in their order.
const (
	StepCopy    Step = "copy"
	StepCompare Step = "compare"
)

// Copier copies one store. Whatever ends it, Run goes on from there. It is not safe for
// concurrent use; that two of them work on the same stores does no harm.
type Copier struct {
	source, target Place
	opts           Options

	storeID     string
	takesLegacy bool
	total       int64 // credentials
}

// NewCopier returns a copier of source into target.
func NewCopier(source, target Place, opts Options) *Copier {
	opts.Rows = cmp.Or(opts.Rows, rowsAtOnce)
	return &Copier{source: source, target: target, opts: opts}
}

// Outcome is what became of a copy.
type Outcome struct {
	StoreID     core.Text        `json:"store_id"`
	Credentials int64            `json:"credentials"`
	DataKeys    int              `json:"data_keys"`
	Grants      int64            `json:"grants"`
	Live        []fleet.Instance `json:"-"` // instances of the source that ran a moment ago
	// Before says that the copy was handed over by an earlier run.
	Before bool `json:"before"`
}

const rowsAtOnce = 500 // the default of Options.Rows

// Run copies, compares and hands over. It returns one of the errors above, with the source
// as it was unless a copy had begun, or core.ErrStoreUnavailable. Once the source refuses
// writes it goes on doing so after an error too, until Run succeeds or Cancel is called.
func (c *Copier) Run(ctx context.Context) (*Outcome, error) {
	source, target, err := c.begin(ctx)
	if err != nil {
		return nil, err
	}
	o, err := c.outcome(ctx, source, target)
	if err != nil {
		return nil, err
	}
	if source, err = c.closeSource(ctx, source); err != nil {
		return nil, err
	}
	if source.Phase == Copying {
		if err := c.copyAll(ctx, source.CopyID); err != nil {
			return nil, err
		}
		if err := c.compare(ctx, o); err != nil {
			return nil, err
		}
		// The source is given up first: from here on only the target can be taken into use.
		moved := source
		moved.Phase = Moved
		if err := c.source.Store.SetRelocationMark(ctx, source, moved); err != nil {
			return nil, fmt.Errorf("giving up the source: %w", err)
		}
	}
	if target.Phase == Copying {
		if now, err := c.source.Store.RelocationMark(ctx); err != nil || now.Phase != Moved || now.CopyID != target.CopyID {
			return nil, cmp.Or(err, fmt.Errorf("%w: somebody cancelled it", ErrOtherCopy))
		}
		done := target
		done.Phase = Done
		if err := c.target.Store.SetRelocationMark(ctx, target, done); err != nil {
			return nil, fmt.Errorf("opening the target: %w", err)
		}
		if err := c.requireGivenUp(ctx, done, target); err != nil {
			return nil, err
		}
	}
	return o, count(ctx, c.target.Store, o)
}

// requireGivenUp closes the target again, with the mark that it had, unless the source is seen
// to be given up still: it may have been taken back between the last look at it and the
// opening of the target.
func (c *Copier) requireGivenUp(ctx context.Context, done, back Mark) error {
	now, err := c.source.Store.RelocationMark(ctx)
	switch {
	case err != nil:
		err = fmt.Errorf("reading the source: %w", err)
	case now.Phase == Moved && now.CopyID == done.CopyID:
		return nil
	default:
		err = fmt.Errorf("%w: somebody cancelled it", ErrOtherCopy)
	}
	return errors.Join(err, putBack(ctx, c.target.Store, done, back))
}

// putBack gives a store the mark back that it had before one of this copier, also if ctx has
// ended.
func putBack(ctx context.Context, s Stores, mark, back Mark) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), putBackTimeout)
	defer cancel()
	if err := s.SetRelocationMark(ctx, mark, back); err != nil {
		return fmt.Errorf("putting the mark of the target back: %w", err)
	}
	return nil
}

const putBackTimeout = 10 * time.Second

// Plan returns what Run would copy, or the error with which it would refuse to, as far as
// that can be known without writing.
func (c *Copier) Plan(ctx context.Context) (*Outcome, error) {
	source, target, err := c.marks(ctx)
	if err != nil {
		return nil, err
	}
	if source.Role != Source {
		if err := errors.Join(c.requireSealed(ctx), c.fit(ctx), c.requireEmpty(ctx, "")); err != nil {
			return nil, err
		}
	}
	o, err := c.outcome(ctx, source, target)
	if err != nil {
		return nil, err
	}
	return o, count(ctx, c.source.Store, o)
}

// outcome is one in which nothing was counted yet.
func (c *Copier) outcome(ctx context.Context, source, target Mark) (*Outcome, error) {
	instances, err := c.source.Store.Instances(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking which instances are live: %w", err)
	}
	o := &Outcome{StoreID: core.Text(c.storeID), Before: source.Phase == Moved && target.Phase == Done}
	for _, i := range instances {
		if i.Live {
			o.Live = append(o.Live, i)
		}
	}
	return o, nil
}

// count fills in what a store holds.
func count(ctx context.Context, s Stores, o *Outcome) error {
	state, err := s.LoadRing(ctx)
	if err != nil {
		return err
	}
	counts, err := s.Counts(ctx)
	if err != nil {
		return err
	}
	o.DataKeys, o.Credentials = len(state.DataKeys), counts.Credentials
	return nil
}

// copyAll copies what the target does not have yet. Nothing changes in the source any
// more.
func (c *Copier) copyAll(ctx context.Context, copyID string) error {
	state, err := c.source.Store.LoadRing(ctx)
	if err != nil {
		return fmt.Errorf("reading the data keys: %w", err)
	}
	if err := c.target.Store.Import(ctx, copyID, Part{Ring: &state}); err != nil {
		return fmt.Errorf("copying the data keys: %w", err)
	}
	if err := c.copyCredentials(ctx, copyID); err != nil {
		return fmt.Errorf("copying credentials: %w", err)
	}
	if err := c.copyGrants(ctx, copyID); err != nil {
		return fmt.Errorf("copying what is known of grants: %w", err)
	}
	q, err := c.source.Store.Sequences(ctx)
	if err == nil {
		err = c.target.Store.Import(ctx, copyID, Part{Sequences: &q})
	}
	if err != nil {
		return fmt.Errorf("copying sequences: %w", err)
	}
	if report, err := c.source.Store.LastReport(ctx); err != nil {
		return fmt.Errorf("copying the report of the last rotation: %w", err)
	} else if report != nil {
		if err := c.target.Store.SaveReport(ctx, report); err != nil {
			return fmt.Errorf("copying the report of the last rotation: %w", err)
		}
	}
	if state.LegacyClosed {
		if _, err := c.target.Store.CloseLegacy(ctx); err != nil {
			return fmt.Errorf("closing the target to legacy records: %w", err)
		}
	}
	return nil
}

// copyCredentials goes on behind the highest ID that the target has: they are copied by
// ascending ID.
func (c *Copier) copyCredentials(ctx context.Context, copyID string) error {
	after, done, err := c.copied(ctx)
	if err != nil {
		return err
	}
	for {
		rows, err := c.source.Store.Scan(ctx, after, c.opts.Rows)
		if err != nil || len(rows) == 0 {
			return err
		}
		if err := c.target.Store.Import(ctx, copyID, Part{Credentials: rows}); err != nil {
			return err
		}
		after, done = rows[len(rows)-1].ID, done+int64(len(rows))
		c.tell(StepCopy, done)
	}
}

// copied returns the highest ID of the target, and how many credentials it has.
func (c *Copier) copied(ctx context.Context) (last, n int64, err error) {
	for last = firstID; ; {
		rows, err := c.target.Store.Scan(ctx, last, c.opts.Rows)
		if err != nil || len(rows) == 0 {
			return last, n, err
		}
		last, n = rows[len(rows)-1].ID, n+int64(len(rows))
	}
}

func (c *Copier) copyGrants(ctx context.Context, copyID string) error {
	for after := (access.Key{UserID: firstID}); ; {
		grants, err := c.source.Store.ScanGrants(ctx, after, c.opts.Rows)
		if err != nil || len(grants) == 0 {
			return err
		}
		if err := c.target.Store.Import(ctx, copyID, Part{Grants: grants}); err != nil {
			return err
		}
		after = grants[len(grants)-1].Key
	}
}

func (c *Copier) tell(step Step, done int64) {
	if c.opts.Progress != nil {
		c.opts.Progress(step, done, c.total)
	}
}

// Cancel has the source of a copy take writes again. If the copy was handed over, it
// returns ErrHandedOver unless taken says that the target is not used any more; what was
// deposited there stays there. It returns ErrNothingToCancel where there is no copy.
func Cancel(ctx context.Context, source Store, taken bool) (Mark, error) {
	m, err := source.RelocationMark(ctx)
	switch {
	case err != nil:
		return m, err
	case m.Role != Source:
		return m, ErrNothingToCancel
	case m.Phase == Moved && !taken:
		return m, fmt.Errorf("%w, to %s", ErrHandedOver, core.Text(m.Peer))
	}
	return m, source.SetRelocationMark(ctx, m, Mark{})
}

// Take has the unfinished target of a copy take writes, for where the source is lost for good.
// Nobody but who ran the copy knows whether it is complete. It returns ErrNothingToTake for
// any other store.
func Take(ctx context.Context, target Store) (Mark, error) {
	m, err := target.RelocationMark(ctx)
	if err != nil {
		return m, err
	}
	if m.Role != Target || m.Phase != Copying {
		return m, ErrNothingToTake
	}
	done := m
	done.Phase = Done
	return m, target.SetRelocationMark(ctx, m, done)
}
