package reconcile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

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

// UnprovenError says of which data keys the wrap under the current KEK does not unwrap,
// so that Prune removed no other wrap of theirs. It is core.ErrInvalidCiphertext too.
type UnprovenError struct{ DataKeys []envelope.KeyID }

// shownUnproven is how many data keys an UnprovenError names as text.
const shownUnproven = 5

// Error implements error.
func (e *UnprovenError) Error() string {
	names := make([]string, 0, shownUnproven)
	for _, id := range e.DataKeys[:min(len(e.DataKeys), shownUnproven)] {
		names = append(names, id.String())
	}
	if more := len(e.DataKeys) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return fmt.Sprintf("the wrap under the current KEK does not unwrap, so all wraps stay, of data key %s", strings.Join(names, ", "))
}

// Unwrap returns core.ErrInvalidCiphertext.
func (e *UnprovenError) Unwrap() error { return core.ErrInvalidCiphertext }

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
	ids := slices.SortedFunc(maps.Keys(byKey), func(a, b envelope.KeyID) int { return bytes.Compare(a[:], b[:]) })
	failures := make([]error, len(ids))
	flight.Each(ids, func(i int, id envelope.KeyID) {
		limited, cancel := context.WithTimeout(ctx, r.opts.CallTimeout)
		defer cancel()
		failures[i] = prune(limited, r, id, byKey[id])
	})
	unproven := new(UnprovenError)
	for i, id := range ids {
		switch err := failures[i]; {
		case errors.Is(err, keystate.ErrNotEnabled): // destroyed meanwhile, and its wraps with it
			failures[i] = nil
		case errors.Is(err, core.ErrInvalidCiphertext):
			unproven.DataKeys, failures[i] = append(unproven.DataKeys, id), nil
		case err != nil:
			failures[i] = fmt.Errorf("pruning the wraps of data key %s: %w", id, err)
		default:
			for _, kekID := range byKey[id] {
				removed = append(removed, keystate.WrapID{DataKey: id, KEKID: kekID})
			}
		}
	}
	err = errors.Join(errors.Join(failures...), r.Reload(ctx))
	if err == nil && len(unproven.DataKeys) > 0 {
		return removed, unproven
	}
	return removed, err
}

func prune(ctx context.Context, r *Reconciler, id envelope.KeyID, kekIDs []core.KEKID) error {
	k, b, ok := r.loader.Find(id)
	wrap, wrapped := k.WrapUnder(r.keks.Current.ID())
	if !ok || !wrapped {
		return keystate.ErrNotEnabled
	}
	plaintext, _, err := r.unlocker.try(ctx, r.keks.Current, id, wrap, b)
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

// destroyAtOnce is how many data keys are destroyed in a transaction, which keeps those
// locked that write under them.
const destroyAtOnce = 1000

// DestroyUnused destroys those of the data keys that no record needs. See
// keyring.Ring.DestroyUnused.
func DestroyUnused(ctx context.Context, r *Reconciler, ids []envelope.KeyID) (destroyed, inUse []envelope.KeyID, err error) {
	for chunk := range slices.Chunk(ids, destroyAtOnce) {
		gone, err := r.store.DestroyUnused(ctx, chunk)
		for _, id := range gone {
			k, _, _ := r.loader.Find(id)
			audit.Removal(r.opts.Logger, err, "data_key_destroyed", id, k.Version)
		}
		if err != nil {
			return destroyed, nil, err
		}
		destroyed = append(destroyed, gone...)
	}
	if err := r.Reload(ctx); err != nil {
		return destroyed, nil, err
	}
	for _, id := range ids {
		if k, _, enabled := r.loader.Find(id); enabled && !k.Primary {
			inUse = append(inUse, id)
		}
	}
	return destroyed, inUse, nil
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
