package keyring

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
)

// WrapID names a wrap: which data key, and under which KEK.
type WrapID struct {
	DataKey envelope.KeyID
	KEKID   core.KEKID
}

// Prunable returns the wraps that Prune would remove: those of enabled data keys
// that are under neither the current version of the current KEK nor a recovery
// KEK, nor under one for which keep returns true. A data key that the current KEK
// does not wrap keeps all of its wraps; so does a primary that is exposed, which
// they tell: it is rolled first. Nothing is prunable in favour of a current KEK that
// was named compromised.
//
// With rewrapped it is what would be prunable once Rewrap had succeeded: a data key
// that is not exposed then counts as wrapped under every KEK that is configured.
func (r *Ring) Prunable(keep func(core.KEKID) bool, rewrapped bool) []WrapID {
	current := r.current.kekID()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state.banned(current) {
		return nil // the others are what is left to open with
	}
	var prunable []WrapID
	for _, k := range r.state.DataKeys {
		exposed := r.state.Exposed(&k)
		wrapped := rewrapped && !exposed
		if k.State != Enabled || current == "" || !wrapped && !k.wrappedUnder(current) || k.Primary && exposed {
			continue
		}
		for _, w := range k.Wraps {
			if w.KEKID != current && !keep(w.KEKID) && !r.isRecovery(&k, w.KEKID, wrapped) {
				prunable = append(prunable, WrapID{k.ID, w.KEKID})
			}
		}
	}
	return prunable
}

// isRecovery reports whether id is of a recovery KEK: its present version, or an
// older one while k is not wrapped under that. With wrapped, k counts as wrapped. A
// recovery KEK that was named compromised is none any more. r.mu is held.
func (r *Ring) isRecovery(k *DataKeyState, id core.KEKID, wrapped bool) bool {
	return slices.ContainsFunc(r.recovery, func(p *recoveryKEK) bool {
		now := p.kekID()
		return !r.passedOver(p) && (now == "" || now == id || now.Key() == id.Key() && !wrapped && !k.wrappedUnder(now))
	})
}

// Prune removes what Prunable returns, and returns what it removed. Of each data
// key it first sees the wrap under the current KEK unwrap, so that nothing is
// removed on the word of the database.
//
// It returns core's sentinels and core.ErrStoreUnavailable.
func (r *Ring) Prune(ctx context.Context, keep func(core.KEKID) bool) (removed []WrapID, err error) {
	if r.opts.ReadOnly {
		return nil, errReadOnly
	}
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	if err := r.permitCurrent(); err != nil {
		return nil, err
	}
	byKey := make(map[envelope.KeyID][]core.KEKID)
	for _, w := range r.Prunable(keep, false) {
		byKey[w.DataKey] = append(byKey[w.DataKey], w.KEKID)
	}
	for id, kekIDs := range byKey {
		err := r.prune(ctx, id, kekIDs)
		if errors.Is(err, ErrNotEnabled) {
			continue // destroyed meanwhile, and its wraps with it
		}
		if err != nil {
			return removed, fmt.Errorf("pruning the wraps of data key %s: %w", id, err)
		}
		for _, kekID := range kekIDs {
			removed = append(removed, WrapID{id, kekID})
		}
	}
	return removed, r.Reload(ctx)
}

func (r *Ring) prune(ctx context.Context, id envelope.KeyID, kekIDs []core.KEKID) error {
	k, b, ok := r.bound(id)
	wrap, wrapped := k.wrapUnder(r.current.kekID())
	if !ok || !wrapped {
		return ErrNotEnabled
	}
	plaintext, _, err := r.current.unwrap(ctx, id, wrap, b)
	clear(plaintext)
	if err != nil {
		return r.heed(err)
	}
	err = r.store.RemoveWraps(ctx, id, kekIDs)
	for _, kekID := range kekIDs {
		r.removalEvent("data_key_wrap_removed", err, id, k.Version, slog.String("kek_id", string(kekID)))
	}
	return err
}

// Destroy destroys the data key named id for good. It returns ErrInUse, with how
// many records remain, while one is sealed under it; ErrConflict for the primary;
// ErrNotEnabled for a key that is not enabled; and core.ErrStoreUnavailable.
func (r *Ring) Destroy(ctx context.Context, id envelope.KeyID) (remaining int64, err error) {
	if r.opts.ReadOnly {
		return 0, errReadOnly
	}
	k, _, _ := r.bound(id)
	remaining, err = r.store.DestroyDataKey(ctx, id)
	r.removalEvent("data_key_destroyed", err, id, k.Version)
	if err != nil {
		return remaining, err
	}
	return 0, r.Reload(ctx)
}

// removalEvent is keyEvent for what ended with err: nothing if that says that nothing
// was removed, and a line that says so if nobody knows.
func (r *Ring) removalEvent(event string, err error, id envelope.KeyID, version int64, more ...slog.Attr) {
	switch {
	case err == nil:
		r.keyEvent(event, id, version, more...)
	case errors.Is(err, core.ErrOutcomeUnknown):
		r.keyEvent(event, id, version, append(more, slog.String("outcome", "unknown"))...)
	}
}
