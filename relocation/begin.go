package relocation

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/pause"
)

// marks returns the marks of both stores: they belong to one copy, or the source is part
// of none and the target of none that has come further than to mark it.
func (c *Copier) marks(ctx context.Context) (source, target Mark, err error) {
	state, err := c.source.Store.LoadRing(ctx)
	if err != nil {
		return source, target, fmt.Errorf("reading the source: %w", err)
	}
	c.storeID, c.takesLegacy = state.StoreID, !state.LegacyClosed
	if source, err = c.source.Store.RelocationMark(ctx); err != nil {
		return source, target, fmt.Errorf("reading the source: %w", err)
	}
	if target, err = c.target.Store.RelocationMark(ctx); err != nil {
		return source, target, fmt.Errorf("reading the target: %w", err)
	}
	counts, err := c.source.Store.Counts(ctx)
	if err != nil {
		return source, target, fmt.Errorf("reading the source: %w", err)
	}
	c.total = counts.Credentials
	switch {
	case source.Role == Source && target.Role == Target && source.CopyID == target.CopyID:
	case source.Role == Source:
		err = fmt.Errorf("%w: the source is copied, or has moved, to %s", ErrOtherCopy, core.Text(source.Peer))
	case source.Role == Target && source.Phase != Done:
		err = fmt.Errorf("%w: the source is itself an unfinished copy of %s", ErrOtherCopy, core.Text(source.Peer))
	case target.CopyID != "" && (target.Role != Target || target.Phase != Copying):
		err = fmt.Errorf("%w: the target was copied from, or to, %s", ErrOtherCopy, core.Text(target.Peer))
	}
	return source, target, err
}

// begin returns the marks of both stores, which belong to one copy. If there is none yet,
// it begins one with the target, which nobody uses: if that fails, the source is as it
// was.
func (c *Copier) begin(ctx context.Context) (source, target Mark, err error) {
	source, target, err = c.marks(ctx)
	if err != nil || source.Role == Source {
		return source, target, err
	}
	if err := c.requireSealed(ctx); err != nil {
		return source, target, err
	}
	if err := c.fit(ctx); err != nil {
		return source, target, err
	}
	target, err = c.prepareTarget(ctx, target)
	return source, target, err
}

// prepareTarget makes the target an empty store with the ID of the source, and marks it.
func (c *Copier) prepareTarget(ctx context.Context, mark Mark) (Mark, error) {
	if err := c.requireEmpty(ctx, ""); err != nil {
		return mark, err
	}
	if err := c.opts.Migrate(ctx, c.storeID, c.takesLegacy); err != nil {
		return mark, fmt.Errorf("making the tables of the target: %w", err)
	}
	if err := c.requireEmpty(ctx, c.storeID); err != nil {
		return mark, err
	}
	if mark.CopyID != "" {
		return mark, nil // an earlier run came as far as here
	}
	next := Mark{CopyID: rand.Text(), Role: Target, Phase: Copying, Peer: c.source.Name}
	if err := c.target.Store.SetRelocationMark(ctx, mark, next); err != nil {
		return mark, fmt.Errorf("closing the target: %w", err)
	}
	return next, c.requireOther(ctx, next, mark)
}

// requireOther returns ErrOtherCopy, with the target as it was, if source and target are one
// database under two names: then the mark of the target is the source's too.
func (c *Copier) requireOther(ctx context.Context, mark, back Mark) error {
	m, err := c.source.Store.RelocationMark(ctx)
	switch {
	case err != nil:
		err = fmt.Errorf("reading the source: %w", err)
	case m.CopyID == mark.CopyID:
		err = fmt.Errorf("%w: the target is the source itself", ErrOtherCopy)
	default:
		return nil
	}
	return errors.Join(err, putBack(ctx, c.target.Store, mark, back))
}

// requireEmpty returns ErrNotEmpty if the target holds a credential or a data key, or is
// another store than the one with that ID. A store without an ID has no tables yet.
func (c *Copier) requireEmpty(ctx context.Context, id string) error {
	state, err := c.target.Store.LoadRing(ctx)
	if err != nil {
		return fmt.Errorf("reading the target: %w", err)
	}
	if state.StoreID != "" && state.StoreID != c.storeID || id != "" && state.StoreID != id {
		return fmt.Errorf("%w: it is the store %s", ErrNotEmpty, core.Text(state.StoreID))
	}
	if len(state.DataKeys) > 0 {
		return fmt.Errorf("%w: it holds data keys, as after a copy that was cancelled", ErrNotEmpty)
	}
	columns, err := c.target.Store.BinaryColumns(ctx)
	if err != nil {
		return fmt.Errorf("reading the target: %w", err)
	}
	if !slices.ContainsFunc(columns, func(c credential.Column) bool { return c.Table == credential.Table }) {
		return nil // there is no table to look into yet
	}
	rows, err := c.target.Store.Scan(ctx, firstID, 1)
	if err == nil && len(rows) > 0 {
		err = fmt.Errorf("%w: it holds credentials", ErrNotEmpty)
	}
	return err
}

// firstID is below every ID.
const firstID = -1 << 63

// leasePoll is how often leases are looked at, and leaseGrace how long after its end the
// holder of one may still be about to store what it was answered.
const (
	leasePoll  = 250 * time.Millisecond
	leaseGrace = 5 * time.Second
)

// closeSource has the source refuse writes, and returns its mark. Grants end first, since
// the refresh token that one has spent would be lost with its successor.
func (c *Copier) closeSource(ctx context.Context, mark Mark) (Mark, error) {
	if mark.Role != Source {
		target, err := c.target.Store.RelocationMark(ctx)
		if err != nil {
			return mark, fmt.Errorf("reading the target: %w", err)
		}
		next := Mark{CopyID: target.CopyID, Role: Source, Phase: Closing, Peer: c.target.Name}
		if err := c.source.Store.SetRelocationMark(ctx, mark, next); err != nil {
			return mark, fmt.Errorf("closing the source: %w", err)
		}
		mark = next
	}
	if mark.Phase != Closing {
		return mark, nil
	}
	for {
		held, err := c.source.Store.HeldLeases(ctx, leaseGrace)
		if err != nil {
			return mark, fmt.Errorf("waiting for grants: %w", err)
		}
		if held == 0 {
			break
		}
		if !pause.For(ctx, leasePoll) {
			return mark, context.Cause(ctx)
		}
	}
	if err := c.requireSealed(ctx); err != nil {
		return mark, err
	}
	next := mark
	next.Phase = Copying
	if err := c.source.Store.SetRelocationMark(ctx, mark, next); err != nil {
		return mark, fmt.Errorf("closing the source: %w", err)
	}
	return next, nil
}

// requireSealed returns ErrResealing while records of the source are sealed anew.
func (c *Copier) requireSealed(ctx context.Context) error {
	run, ok, err := c.source.Store.CurrentRun(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("asking for a re-seal: %w", err)
	case ok && !run.Ended:
		return ErrResealing
	}
	return nil
}
