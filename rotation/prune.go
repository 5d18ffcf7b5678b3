package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/fleet"
)

// prune removes the wraps that nobody needs. A data key whose wrap under the current KEK
// does not unwrap keeps its wraps, and the report tells: anyone who writes to the
// database can plant one.
func (r *Rotator) prune(ctx context.Context, report *Report) error {
	pruned, err := r.removeWraps(ctx, report.Compromised)
	report.Pruned = append(report.Pruned, pruned...)
	if unproven, ok := errors.AsType[*keyring.UnprovenError](err); ok {
		report.Notes = append(report.Notes, unproven.Error())
		return nil
	}
	return err
}

// Prune removes the wraps that neither the configuration nor a live instance
// needs, and returns them. It returns ErrBlocked where that could remove a recovery
// wrap which is not configured here, unless force is true; the other errors are
// those of keyring.Ring.Prune.
func (r *Rotator) Prune(ctx context.Context, force bool) ([]Wrap, error) {
	if state, err := r.store.LoadRing(ctx); err != nil {
		return nil, err
	} else if found := r.unknownKEKs(ctx, &state, false); len(found) > 0 && !force {
		return nil, blocked(found)
	}
	wraps, err := r.removeWraps(ctx, nil)
	if len(wraps) > 0 {
		err = errors.Join(err, r.rememberFormer(ctx, wraps))
	}
	return wraps, err
}

func (r *Rotator) removeWraps(ctx context.Context, compromised []string) ([]Wrap, error) {
	keep, err := r.stillNeeded(ctx, compromised)
	if err != nil {
		return nil, err
	}
	removed, err := r.ring.Prune(ctx, keep)
	return WrapsOf(removed), err
}

// rememberFormer notes wraps that were removed outside of a rotation, for the report
// of the next.
func (r *Rotator) rememberFormer(ctx context.Context, wraps []Wrap) error {
	last, err := r.LastReport(ctx)
	if err != nil {
		return err
	}
	if last == nil {
		last = new(Report)
	}
	last.Former = append(last.Former, wraps...)
	return r.save(ctx, last)
}

// stillNeeded returns a function that reports whether a live instance can use a
// KEK that is not among the compromised keys, and cannot use the current one.
func (r *Rotator) stillNeeded(ctx context.Context, compromised []string) (func(core.KEKID) bool, error) {
	instances, err := r.store.Instances(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking which instances are live: %w", err)
	}
	current := r.ring.Status().KEKID
	return func(id core.KEKID) bool {
		return !slices.Contains(compromised, id.Key()) && slices.ContainsFunc(instances, func(i fleet.Instance) bool {
			return i.Live && !i.CanUse(current) && i.CanUse(id)
		})
	}, nil
}
