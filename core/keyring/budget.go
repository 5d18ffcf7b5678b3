package keyring

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/lockwood-kms/lockwood/core"
)

// budget is what is left of the seals that this instance has reserved for a data
// key. Reserving before sealing makes the bound of NIST SP 800-38D section 8.3
// hold across instances and crashes: a block that a crash loses counts as used.
type budget struct{ left atomic.Int64 }

// take takes one seal, if there is one.
func (b *budget) take() bool { return b.left.Add(-1) >= 0 }

// refill reserves another block for p, or rolls the ring if p's budget is spent.
func (r *Ring) refill(ctx context.Context, p *unlockedKey) error {
	return r.flight(ctx, "refill "+p.key.ID().String(), func(ctx context.Context) error {
		if p.budget.left.Load() > 0 {
			return nil // the flight before this one did it
		}
		ok, err := r.store.ReserveSeals(ctx, p.key.ID(), r.opts.SealBlock, r.opts.MaxSeals)
		switch {
		case errors.Is(err, ErrNotEnabled):
			return r.settle(ctx)
		case err != nil:
			return fmt.Errorf("reserving seals: %w", err)
		case ok:
			p.budget.left.Store(r.opts.SealBlock)
			return nil
		}
		return r.roll(ctx)
	})
}

// nearlySpent reports whether so much of k's budget is reserved that the ring
// should roll while there is still time to.
func (r *Ring) nearlySpent(k *DataKeyState) bool {
	return k.SealsReserved > r.opts.MaxSeals-r.opts.MaxSeals/8
}

// flight runs work once for all who ask for it under the same name at the same
// time, under the ring's own context and deadline. Who stops waiting gets the
// cause of their own context; the work goes on for the others.
func (r *Ring) flight(ctx context.Context, name string, work func(context.Context) error) error {
	done := r.flights.DoChan(name, func() (any, error) {
		ctx, cancel := context.WithTimeout(r.ctx, r.opts.CallTimeout)
		defer cancel()
		return nil, work(ctx)
	})
	select {
	case result := <-done:
		return result.Err
	case <-ctx.Done():
		return fmt.Errorf("waiting for the ring: %w: %w", core.ErrUnavailable, context.Cause(ctx))
	}
}
