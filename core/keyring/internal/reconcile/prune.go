package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/audit"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/flight"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/keystate"
)

// Prunable returns the wraps that Prune would remove. See keyring.Ring.Prunable.
func Prunable(r *Reconciler, keep func(core.KEKID) bool, rewrapped bool) []keystate.WrapID {
	current, state := r.keks.Current.ID(), r.loader.State()
	if current == "" || state.IsCompromised(current) {
		return nil // the others are what is left to open with
	}
	var prunable []keystate.WrapID
	for _, k := range state.EnabledKeys() {
		exposed := state.Exposed(&k)
		wrapped := rewrapped && !exposed
		if !wrapped && !k.WrappedUnder(current) || k.Primary && exposed {
			continue
		}
		for _, w := range k.Wraps {
			if w.KEKID != current && !keep(w.KEKID) && !r.keks.protects(&state, &k, w.KEKID, wrapped) {
				prunable = append(prunable, keystate.WrapID{DataKey: k.ID, KEKID: w.KEKID})
			}
		}
	}
	return prunable
}

// Prune removes what Prunable returns, and returns what it removed. See
// keyring.Ring.Prune.
func Prune(ctx context.Context, r *Reconciler, keep func(core.KEKID) bool) (removed []keystate.WrapID, err error) {
	if err := r.loader.Load(ctx); err != nil {
		return nil, err
	}
	state := r.loader.State()
	if err := r.keks.permitCurrent(&state); err != nil {
		return nil, err
	}
	byKey := make(map[envelope.KeyID][]core.KEKID)
	for _, w := range Prunable(r, keep, false) {
		byKey[w.DataKey] = append(byKey[w.DataKey], w.KEKID)
	}
	ids := slices.Collect(maps.Keys(byKey))
	failures := make([]error, len(ids))
	flight.Each(ids, func(i int, id envelope.KeyID) { failures[i] = prune(ctx, r, id, byKey[id]) })
	for i, id := range ids {
		switch err := failures[i]; {
		case errors.Is(err, keystate.ErrNotEnabled): // destroyed meanwhile, and its wraps with it
			failures[i] = nil
		case err != nil:
			failures[i] = fmt.Errorf("pruning the wraps of data key %s: %w", id, err)
		default:
			for _, kekID := range byKey[id] {
				removed = append(removed, keystate.WrapID{DataKey: id, KEKID: kekID})
			}
		}
	}
	return removed, errors.Join(errors.Join(failures...), r.Reload(ctx))
}

func prune(ctx context.Context, r *Reconciler, id envelope.KeyID, kekIDs []core.KEKID) error {
	k, b, ok := r.loader.Find(id)
	wrap, wrapped := k.WrapUnder(r.keks.Current.ID())
	if !ok || !wrapped {
		return keystate.ErrNotEnabled
	}
	plaintext, _, err := r.keks.Current.Unwrap(ctx, id, wrap, b)
	clear(plaintext)
	if err != nil {
		return err
	}
	r.loader.Unlocked(k.Version)
	err = r.store.RemoveWraps(ctx, id, kekIDs)
	for _, kekID := range kekIDs {
		audit.Removal(r.opts.Logger, err, "data_key_wrap_removed", id, k.Version, slog.String("kek_id", string(kekID)))
	}
	return err
}

// Destroy destroys the data key named id for good. See keyring.Ring.Destroy.
func Destroy(ctx context.Context, r *Reconciler, id envelope.KeyID) (remaining int64, err error) {
	k, _, _ := r.loader.Find(id)
	remaining, err = r.store.DestroyDataKey(ctx, id)
	audit.Removal(r.opts.Logger, err, "data_key_destroyed", id, k.Version)
	if err != nil {
		return remaining, err
	}
	return 0, r.Reload(ctx)
}
