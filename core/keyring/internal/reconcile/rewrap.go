package reconcile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/audit"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/cache"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/flight"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/kek"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/keystate"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/loader"
)

// Rewrap adds to every enabled data key the wraps that it lacks, and returns those
// that it added. See keyring.Ring.Rewrap.
func Rewrap(ctx context.Context, r *Reconciler) (added []core.KEKID, err error) {
	if err := r.loader.Load(ctx); err != nil {
		return nil, err
	}
	if _, err := r.keks.Current.Resolve(ctx); err != nil {
		return nil, err
	}
	state := r.loader.State()
	if err := r.keks.permitCurrent(&state); err != nil {
		return nil, err
	}
	errs := r.keks.RefreshRecovery(ctx)
	ids := r.missing()
	wraps, failures := make([][]core.KEKID, len(ids)), make([]error, len(ids))
	flight.Each(ids, func(i int, id envelope.KeyID) {
		limited, cancel := context.WithTimeout(ctx, r.opts.CallTimeout)
		defer cancel()
		var err error
		if wraps[i], err = r.wrapper.add(limited, id, false); err != nil {
			failures[i] = fmt.Errorf("data key %s: %w", id, err)
		}
	})
	added, errs = slices.Concat(wraps...), append(errs, failures...)
	if err := r.Reload(ctx); err != nil {
		errs = append(errs, err)
	}
	return added, errors.Join(errs...)
}

// rewrapAll is Rewrap as the ring does it by itself. A failure is logged and
// tried again later: the older wrap still serves.
func (r *Reconciler) rewrapAll(ctx context.Context) {
	if r.opts.ReadOnly || r.opts.NoAutoRewrap {
		return
	}
	ids := r.missing()
	r.mu.Lock()
	maps.DeleteFunc(r.rewraps, func(id envelope.KeyID, _ *flight.Failure) bool { return !slices.Contains(ids, id) })
	r.mu.Unlock()
	flight.Each(ids, func(_ int, id envelope.KeyID) {
		r.mu.Lock()
		failed := r.rewraps[id]
		r.mu.Unlock()
		if !failed.Due(time.Now()) || !r.adds.Allow() {
			return
		}
		_, err := r.wrapper.add(ctx, id, false)
		r.mu.Lock()
		if err == nil {
			delete(r.rewraps, id)
		} else {
			r.rewraps[id] = failed.Again(time.Now(), err)
		}
		r.mu.Unlock()
		if err != nil {
			r.opts.Logger.Warn("a data key could not be wrapped under every KEK that is configured; it will be tried again", "key_id", id.String(), "error", err)
		}
	})
}

// missing returns the data keys of MissingWraps, each once.
func (r *Reconciler) missing() []envelope.KeyID {
	var ids []envelope.KeyID
	for _, w := range MissingWraps(r) {
		ids = append(ids, w.DataKey)
	}
	return slices.Compact(ids)
}

// MissingWraps returns the wraps that Rewrap would add. See
// keyring.Ring.MissingWraps.
func MissingWraps(r *Reconciler) []keystate.WrapID {
	current, state := r.keks.Current.ID(), r.loader.State()
	if state.IsCompromised(current) {
		return nil
	}
	var missing []keystate.WrapID
	for _, k := range state.EnabledKeys() {
		if state.Exposed(&k) {
			continue
		}
		if current != "" && !k.WrappedUnder(current) {
			missing = append(missing, keystate.WrapID{DataKey: k.ID, KEKID: current})
		}
		for _, p := range r.keks.unprotected(&state, &k) {
			missing = append(missing, keystate.WrapID{DataKey: k.ID, KEKID: p.ID()})
		}
	}
	return missing
}

// wrapper adds wraps to data keys. It is safe for concurrent use.
type wrapper struct {
	store    keystate.Store
	loader   *loader.Loader
	cache    *cache.Cache
	keks     *KEKs
	unlocker *unlocker
	log      *slog.Logger
}

// add adds the wraps that the data key named id lacks, the current one first, and
// returns the KEK IDs of those it added. With replace it makes one under the current
// KEK also if there is one, which then does not unwrap.
func (w *wrapper) add(ctx context.Context, id envelope.KeyID, replace bool) (added []core.KEKID, err error) {
	k, b, ok := w.loader.Find(id)
	if !ok {
		return nil, fmt.Errorf("data key %s: %w", id, keystate.ErrNotEnabled)
	}
	plaintext, proof, err := w.unlocker.plaintext(ctx, &k, b)
	if err != nil {
		return nil, err
	}
	defer clear(plaintext)
	b.Recovered = proof.Recovered
	if replace || !k.WrappedUnder(w.keks.Current.ID()) {
		kekID, err := w.addCurrent(ctx, &k, plaintext, b)
		if err != nil {
			return nil, err
		}
		added = append(added, kekID)
	}
	state := w.loader.State()
	for _, p := range w.keks.unprotected(&state, &k) {
		kekID, addErr := w.addRecovery(ctx, &k, p, plaintext, b)
		if addErr != nil {
			err = errors.Join(err, addErr)
		} else if kekID != "" {
			added = append(added, kekID)
		}
	}
	return added, err
}

// addCurrent adds a wrap of k under the current KEK: write, read back, unwrap,
// compare. A wrap that does not come back is removed again.
func (w *wrapper) addCurrent(ctx context.Context, k *keystate.DataKeyState, plaintext []byte, b kek.Binding) (core.KEKID, error) {
	current, state := w.keks.Current, w.loader.State()
	if err := w.keks.permitCurrent(&state); err != nil {
		return "", err
	}
	epoch, err := w.cache.Epoch()
	if err != nil {
		return "", err
	}
	wrap, err := current.Wrap(ctx, plaintext, b)
	if err != nil {
		return "", err
	}
	if k.WrappedUnder(wrap.KEKID) {
		// It takes the place of one, so it is proven first.
		if err := current.Verify(ctx, k.ID, wrap, b); err != nil {
			return "", fmt.Errorf("verifying wrap: %w", err)
		}
	}
	stored, err := w.storeWrap(ctx, k.ID, wrap)
	if err == nil {
		err = w.unlocker.verify(ctx, current, k.ID, stored, b) // the store may return one that was there before
	}
	if errors.Is(err, core.ErrInvalidCiphertext) && !errors.Is(err, errRefusedBefore) {
		err = errors.Join(err, w.store.RemoveWraps(ctx, k.ID, []core.KEKID{wrap.KEKID}))
	}
	if err != nil {
		return "", fmt.Errorf("reading back wrap: %w", err)
	}
	audit.Key(w.log, "data_key_rewrapped", k.ID, k.Version, slog.String("kek_id", string(wrap.KEKID)))
	if now := current.ID(); wrap.KEKID != now {
		return wrap.KEKID, fmt.Errorf("the provider names %s as its KEK, and wraps under %s: %w", now, wrap.KEKID, core.ErrUnavailable)
	}
	key, err := cache.NewKey(plaintext, cache.Proof{StoreID: b.StoreID, Version: b.Version, KEK: wrap.KEKID, Current: true, Recovered: b.Recovered})
	if err != nil {
		return "", err
	}
	w.unlocker.admit(key, epoch)
	return wrap.KEKID, nil
}

// addRecovery adds a wrap of k under p, and returns no KEK ID if it was there.
func (w *wrapper) addRecovery(ctx context.Context, k *keystate.DataKeyState, p *kek.Recovery, plaintext []byte, b kek.Binding) (core.KEKID, error) {
	if id, err := p.Resolve(ctx); err != nil {
		return "", err
	} else if k.WrappedUnder(id) {
		return "", nil
	}
	wrap, err := p.Wrap(ctx, plaintext, b)
	if err != nil {
		return "", err
	}
	stored, err := w.storeWrap(ctx, k.ID, wrap)
	if err != nil {
		return "", err
	}
	if !bytes.Equal(stored.Wrapped, wrap.Wrapped) {
		return "", fmt.Errorf("reading back recovery wrap: the store returns other bytes: %w", core.ErrInvalidCiphertext)
	}
	audit.Key(w.log, "data_key_rewrapped", k.ID, k.Version, slog.String("kek_id", string(wrap.KEKID)), slog.Bool("recovery", true))
	return wrap.KEKID, nil
}

// storeWrap stores a wrap and reads it back.
func (w *wrapper) storeWrap(ctx context.Context, id envelope.KeyID, wrap core.WrappedKey) (core.WrappedKey, error) {
	state := w.loader.State()
	if err := permit(&state, wrap); err != nil {
		return core.WrappedKey{}, err
	}
	if err := w.store.AddWrap(ctx, id, wrap); err != nil {
		return core.WrappedKey{}, fmt.Errorf("storing wrap: %w", err)
	}
	if err := w.loader.Load(ctx); err != nil {
		return core.WrappedKey{}, err
	}
	k, _, _ := w.loader.Find(id)
	stored, ok := k.WrapUnder(wrap.KEKID)
	if !ok {
		return core.WrappedKey{}, fmt.Errorf("reading back wrap: it is not there: %w", keystate.ErrConflict)
	}
	return stored, nil
}
