package keyring

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
)

// replace makes a new primary in place of p, which serves until that succeeds.
func (r *Ring) replace(ctx context.Context, state *State, p *DataKeyState) {
	if err := r.makePrimary(ctx, state, p.ID); err != nil && !errors.Is(err, ErrConflict) {
		r.opts.Logger.Warn("rolling the ring failed; it goes on under the present data key and will try again", "error", err)
	}
}

// tooOld reports whether k has been the primary for long enough. What this ring made
// lately is not old, whatever the database says of the time.
func (r *Ring) tooOld(k *DataKeyState) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.opts.MaxAge > 0 && time.Since(k.CreatedAt) > r.opts.MaxAge && time.Since(r.madePrimary) > minMaxAge
}

// Roll makes a new primary data key; the present one goes on opening. It returns
// what keeps the ring from it, as Seal does, or nil also if another instance
// rolled at the same time.
func (r *Ring) Roll(ctx context.Context) error {
	if r.opts.ReadOnly {
		return errReadOnly
	}
	before := r.Status().Primary
	if err := r.Reload(ctx); err != nil {
		return err
	}
	if err := r.view.Load().sealErr; err != nil {
		return err
	}
	return r.flight(ctx, "roll", func(ctx context.Context) error {
		r.mu.Lock()
		state := r.state
		r.mu.Unlock()
		if p := state.Primary(); p == nil || p.ID != before {
			return r.settle(ctx)
		}
		if err := r.makePrimary(ctx, &state, before); err != nil && !errors.Is(err, ErrConflict) {
			return fmt.Errorf("rolling the ring: %w", err)
		}
		return r.settle(ctx)
	})
}

// roll makes a new primary because the present one has no seals left.
func (r *Ring) roll(ctx context.Context) error {
	if err := r.load(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	state := r.state
	r.mu.Unlock()
	p := state.Primary()
	if p == nil || p.SealsReserved <= r.opts.MaxSeals-r.opts.SealBlock {
		return r.settle(ctx) // another instance rolled first
	}
	if err := r.makePrimary(ctx, &state, p.ID); err != nil && !errors.Is(err, ErrConflict) {
		return fmt.Errorf("rolling the ring: %w", err)
	}
	return r.settle(ctx)
}

// makePrimary makes a data key that follows every version known, verifies its
// wrap, and inserts it as the primary in place of the one named replaces. It
// returns ErrConflict if another instance was first.
func (r *Ring) makePrimary(ctx context.Context, state *State, replaces envelope.KeyID) error {
	if state.StoreID == "" {
		return fmt.Errorf("making a data key: the database has not been migrated: %w", core.ErrStoreUnavailable)
	}
	if err := r.permitCurrent(); err != nil {
		return err
	}
	r.mu.Lock()
	err := r.attempts[envelope.KeyID{}].wait(time.Now())
	r.mu.Unlock()
	if err != nil {
		return err
	}
	version, err := r.nextVersion(state)
	if err != nil {
		return err
	}
	key, wraps, err := r.generate(ctx, state, version)
	if err != nil {
		return r.remember(envelope.KeyID{}, err)
	}
	err = r.store.InsertDataKey(ctx, NewDataKey{ID: key.ID(), Version: version, Replaces: replaces, Wraps: wraps})
	if err != nil {
		return fmt.Errorf("inserting a data key: %w", err)
	}
	r.keyEvent("data_key_created", key.ID(), version, slog.String("kek_id", string(wraps[0].KEKID)))
	_ = r.remember(envelope.KeyID{}, nil)
	r.mu.Lock()
	r.madePrimary = time.Now()
	r.mu.Unlock()
	if err := r.load(ctx); err != nil {
		return err
	}
	r.admit(&unlockedKey{key: key, viaCurrent: true, budget: new(budget)}, version)
	return nil
}

// nextVersion returns the version that follows every one known.
func (r *Ring) nextVersion(state *State) (int64, error) {
	r.mu.Lock()
	version := r.maxVersion
	r.mu.Unlock()
	for _, k := range state.DataKeys {
		version = max(version, k.Version)
	}
	if version == math.MaxInt64 {
		return 0, errors.New("making a data key: no version follows the newest in the store")
	}
	return version + 1, nil
}

// generate returns a fresh data key with a wrap under every KEK that is to have one.
func (r *Ring) generate(ctx context.Context, state *State, version int64) (*envelope.Key, []core.WrappedKey, error) {
	also, err := r.lagging(ctx, state)
	if err != nil {
		return nil, nil, err
	}
	recovery, err := r.permittedRecovery(ctx)
	if err != nil {
		return nil, nil, err
	}
	key, wraps, err := r.current.generate(ctx, binding{storeID: state.StoreID, version: version}, also, recovery)
	if err != nil {
		return nil, nil, r.heed(err)
	}
	return key, wraps, r.permit(wraps...)
}

// lagging returns the previous KEKs that live instances need, since they can use
// them and not the current one. One that was named compromised gets nothing: then
// there is no new data key until that instance follows.
func (r *Ring) lagging(ctx context.Context, state *State) ([]*kek, error) {
	if r.opts.Live == nil || len(r.previous) == 0 {
		return nil, nil
	}
	instances, err := r.opts.Live(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking which instances are live: %w", err)
	}
	current, err := r.current.resolve(ctx)
	if err != nil {
		return nil, r.heed(err)
	}
	var needed []*kek
	for _, i := range instances {
		if len(i.KEKIDs) == 0 || namesKey(i.KEKIDs, current) {
			continue
		}
		for _, p := range r.previous {
			id, err := p.resolve(ctx)
			if err != nil {
				return nil, notCurrent(fmt.Errorf("asking a previous provider for its KEK ID: %w", err))
			}
			if !namesKey(i.KEKIDs, id) {
				continue
			}
			if state.banned(id) {
				return nil, fmt.Errorf("instance %s can use %s, which was named compromised, and not %s; configure and restart it: %w", i.Name, id, current, core.ErrUnavailable)
			}
			if !slices.Contains(needed, p) {
				needed = append(needed, p)
			}
		}
	}
	return needed, nil
}

func namesKey(ids []core.KEKID, key core.KEKID) bool {
	return slices.ContainsFunc(ids, func(id core.KEKID) bool { return id.Key() == key.Key() })
}
