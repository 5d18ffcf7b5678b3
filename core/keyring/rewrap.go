package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
)

// Rewrap adds to every enabled data key the wraps that it lacks, under the current
// version of the current KEK and under each recovery KEK, and returns those that
// it added. Older wraps stay. Data keys that are exposed (see Exposed) are left
// out: they are to be rolled, and not to be kept.
//
// The errors of all data keys are joined: core's sentinels, and
// core.ErrStoreUnavailable. What could be added is, unless the current KEK was named
// compromised, which is core.ErrKeyMismatch.
func (r *Ring) Rewrap(ctx context.Context) (added []core.KEKID, err error) {
	if r.opts.ReadOnly {
		return nil, errReadOnly
	}
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	if _, err := r.current.resolve(ctx); err != nil {
		return nil, r.heed(err)
	}
	if err := r.permitCurrent(); err != nil {
		return nil, err
	}
	errs := r.refreshRecovery(ctx)
	for _, id := range r.lacking() {
		limited, cancel := context.WithTimeout(ctx, r.opts.CallTimeout)
		more, err := r.addWraps(limited, id, false)
		cancel()
		if err != nil {
			errs = append(errs, fmt.Errorf("data key %s: %w", id, err))
		}
		added = append(added, more...)
	}
	if err := r.Reload(ctx); err != nil {
		errs = append(errs, err)
	}
	return added, errors.Join(errs...)
}

// rewrapAll is Rewrap as the ring does it by itself. A failure is logged and
// tried again later: the older wrap still serves.
func (r *Ring) rewrapAll(ctx context.Context) {
	if r.opts.ReadOnly || r.opts.NoAutoRewrap {
		return
	}
	for _, id := range r.lacking() {
		r.mu.Lock()
		err := r.rewraps[id].wait(time.Now())
		r.mu.Unlock()
		if err != nil {
			continue
		}
		_, err = r.addWraps(ctx, id, false)
		r.mu.Lock()
		if err == nil {
			delete(r.rewraps, id)
		} else {
			r.rewraps[id] = r.rewraps[id].failed(time.Now(), err)
		}
		r.mu.Unlock()
		if err != nil {
			r.opts.Logger.Warn("a data key could not be wrapped under every KEK that is configured; it will be tried again", "key_id", id.String(), "error", err)
		}
	}
}

// Lacking returns the wraps that Rewrap would add, by ascending version of the data
// key, as far as the KEK IDs are known: a recovery KEK that has not answered yet has
// none. It asks nobody.
func (r *Ring) Lacking() []WrapID {
	current := r.current.kekID()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state.banned(current) {
		return nil
	}
	var lacking []WrapID
	for _, k := range r.state.DataKeys {
		if k.State != Enabled || r.state.Exposed(&k) {
			continue
		}
		if current != "" && !k.wrappedUnder(current) {
			lacking = append(lacking, WrapID{k.ID, current})
		}
		for _, p := range r.unprotected(&k) {
			lacking = append(lacking, WrapID{k.ID, p.kekID()})
		}
	}
	return lacking
}

// lacking returns the data keys of Lacking, each once.
func (r *Ring) lacking() []envelope.KeyID {
	var ids []envelope.KeyID
	for _, w := range r.Lacking() {
		ids = append(ids, w.DataKey)
	}
	return slices.Compact(ids)
}

// unprotected returns the recovery KEKs that k is not wrapped under, and could be.
// Of one that never answered nothing is known. r.mu is held.
func (r *Ring) unprotected(k *DataKeyState) []*recoveryKEK {
	var missing []*recoveryKEK
	for _, p := range r.recovery {
		if id := p.kekID(); id != "" && !k.wrappedUnder(id) && !r.passedOver(p) {
			missing = append(missing, p)
		}
	}
	return missing
}

// wrappedUnder reports whether k has a wrap under exactly this KEK ID.
func (k *DataKeyState) wrappedUnder(id core.KEKID) bool {
	return slices.ContainsFunc(k.Wraps, func(w core.WrappedKey) bool { return w.KEKID == id })
}

// wrapUnder returns k's wrap under exactly this KEK ID.
func (k *DataKeyState) wrapUnder(id core.KEKID) (core.WrappedKey, bool) {
	i := slices.IndexFunc(k.Wraps, func(w core.WrappedKey) bool { return w.KEKID == id })
	if i < 0 {
		return core.WrappedKey{}, false
	}
	return k.Wraps[i], true
}

// addWraps adds the wraps that the data key named id lacks, the current one first,
// and returns the KEK IDs of those it added. With replace it makes one under the current KEK also if there is one,
// which then does not unwrap.
func (r *Ring) addWraps(ctx context.Context, id envelope.KeyID, replace bool) (added []core.KEKID, err error) {
	k, b, ok := r.bound(id)
	if !ok {
		return nil, fmt.Errorf("data key %s: %w", id, ErrNotEnabled)
	}
	plaintext, how, err := r.plaintext(ctx, b.storeID, &k)
	if err != nil {
		return nil, err
	}
	defer clear(plaintext)
	b.recovered = how.recovered
	if replace || !k.wrappedUnder(r.current.kekID()) {
		kekID, err := r.addCurrent(ctx, &k, plaintext, b)
		if err != nil {
			return nil, err
		}
		added = append(added, kekID)
	}
	r.mu.Lock()
	missing := r.unprotected(&k)
	r.mu.Unlock()
	for _, p := range missing {
		kekID, addErr := r.addRecovery(ctx, &k, p, plaintext, b)
		if addErr != nil {
			err = errors.Join(err, addErr)
		} else if kekID != "" {
			added = append(added, kekID)
		}
	}
	return added, err
}

// bound returns the enabled data key named id and what its wraps are bound to.
func (r *Ring) bound(id envelope.KeyID) (DataKeyState, binding, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, ok := r.find(id)
	return k, binding{storeID: r.state.StoreID, version: k.Version}, ok
}

// addCurrent adds a wrap of k under the current KEK: write, read back, unwrap,
// compare. A wrap that does not come back is removed again.
func (r *Ring) addCurrent(ctx context.Context, k *DataKeyState, plaintext []byte, b binding) (core.KEKID, error) {
	if err := r.permitCurrent(); err != nil {
		return "", err
	}
	wrap, err := r.current.wrap(ctx, plaintext, b)
	if err != nil {
		return "", r.heed(err)
	}
	if k.wrappedUnder(wrap.KEKID) {
		// It takes the place of one, so it is proven first.
		if err := r.current.verify(ctx, k.ID, wrap, b); err != nil {
			return "", fmt.Errorf("verifying wrap: %w", r.heed(err))
		}
	}
	stored, err := r.storeWrap(ctx, k.ID, wrap)
	if err == nil {
		err = r.heed(r.current.verify(ctx, k.ID, stored, b))
	}
	if errors.Is(err, core.ErrInvalidCiphertext) {
		err = errors.Join(err, r.store.RemoveWraps(ctx, k.ID, []core.KEKID{wrap.KEKID}))
	}
	if err != nil {
		return "", fmt.Errorf("reading back wrap: %w", err)
	}
	r.keyEvent("data_key_rewrapped", k.ID, k.Version, slog.String("kek_id", string(wrap.KEKID)))
	if now := r.current.kekID(); wrap.KEKID != now {
		return wrap.KEKID, fmt.Errorf("the provider names %s as its KEK, and wraps under %s: %w", now, wrap.KEKID, core.ErrUnavailable)
	}
	key, err := envelope.NewKey(plaintext)
	if err != nil {
		return "", err
	}
	r.admitAnew(&unlockedKey{key: key, viaCurrent: true, recovered: b.recovered, budget: new(budget)}, k.Version)
	return wrap.KEKID, nil
}

// addRecovery adds a wrap of k under p, and returns no KEK ID if it was there.
func (r *Ring) addRecovery(ctx context.Context, k *DataKeyState, p *recoveryKEK, plaintext []byte, b binding) (core.KEKID, error) {
	if id, err := p.resolve(ctx); err != nil {
		return "", err
	} else if k.wrappedUnder(id) {
		return "", nil
	}
	wrap, err := p.wrap(ctx, plaintext, b)
	if err != nil {
		return "", err
	}
	stored, err := r.storeWrap(ctx, k.ID, wrap)
	if err != nil {
		return "", err
	}
	if !bytes.Equal(stored.Wrapped, wrap.Wrapped) {
		return "", fmt.Errorf("reading back recovery wrap: the store returns other bytes: %w", core.ErrInvalidCiphertext)
	}
	r.keyEvent("data_key_rewrapped", k.ID, k.Version, slog.String("kek_id", string(wrap.KEKID)), slog.Bool("recovery", true))
	return wrap.KEKID, nil
}

// storeWrap stores a wrap and reads it back.
func (r *Ring) storeWrap(ctx context.Context, id envelope.KeyID, wrap core.WrappedKey) (core.WrappedKey, error) {
	if err := r.permit(wrap); err != nil {
		return core.WrappedKey{}, err
	}
	if err := r.store.AddWrap(ctx, id, wrap); err != nil {
		return core.WrappedKey{}, fmt.Errorf("storing wrap: %w", err)
	}
	if err := r.load(ctx); err != nil {
		return core.WrappedKey{}, err
	}
	k, _, _ := r.bound(id)
	stored, ok := k.wrapUnder(wrap.KEKID)
	if !ok {
		return core.WrappedKey{}, fmt.Errorf("reading back wrap: it is not there: %w", ErrConflict)
	}
	return stored, nil
}
