package keyring

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
)

// unlock brings the data key named id into memory, once for all who ask.
func (r *Ring) unlock(ctx context.Context, id envelope.KeyID) error {
	return r.flight(ctx, "unlock "+id.String(), func(ctx context.Context) error {
		r.mu.Lock()
		k, ok := r.find(id)
		done := r.unlocked[id] != nil
		storeID, err := r.state.StoreID, r.blocked
		if err == nil && !done {
			err = r.attempts[id].wait(time.Now())
		}
		r.mu.Unlock()
		switch {
		case done:
			return nil
		case !ok:
			return fmt.Errorf("data key %s: %w", id, core.ErrInvalidCiphertext)
		case err != nil:
			return err
		}
		key, viaCurrent, err := r.unwrap(ctx, storeID, &k)
		if err != nil {
			return r.remember(id, err)
		}
		r.admit(key, k.Version, viaCurrent)
		return nil
	})
}

// unwrap unwraps k through the current provider, or else through a previous one.
// Only wraps under a key that is configured are looked at.
func (r *Ring) unwrap(ctx context.Context, storeID string, k *DataKeyState) (*envelope.Key, bool, error) {
	key, tried, err := r.unwrapVia(ctx, r.current, storeID, k)
	if err == nil {
		return key, true, nil
	}
	if !errors.Is(err, core.ErrInvalidCiphertext) && !errors.Is(err, core.ErrKeyMismatch) {
		return nil, false, r.heed(err)
	}
	failures := []error{err}
	for _, p := range r.previous {
		key, more, err := r.unwrapVia(ctx, p, storeID, k)
		if err == nil {
			return key, false, nil
		}
		tried += more
		failures = append(failures, err)
	}
	for _, err := range failures {
		if errors.Is(err, core.ErrUnavailable) {
			return nil, false, err
		}
	}
	if tried > 0 {
		return nil, false, fmt.Errorf("%w: %w", core.ErrKeyMismatch, errors.Join(failures...))
	}
	return nil, false, r.mismatch(k)
}

// unwrapVia tries p on every wrap of k under p's key, and says how many there were.
func (r *Ring) unwrapVia(ctx context.Context, p *kek, storeID string, k *DataKeyState) (*envelope.Key, int, error) {
	kekID, err := p.resolve(ctx)
	if err != nil {
		return nil, 0, err
	}
	tried := 0
	err = core.ErrKeyMismatch
	for _, w := range k.Wraps {
		if w.KEKID.Key() != kekID.Key() {
			continue
		}
		tried++
		var key *envelope.Key
		if key, err = p.unwrap(ctx, k.ID, w, storeID, k.Version); err == nil {
			return key, tried, nil
		}
	}
	return nil, tried, err
}

// mismatch is the error that names what k is wrapped under and what is configured.
func (r *Ring) mismatch(k *DataKeyState) error {
	var under, configured []string
	for _, w := range k.Wraps {
		under = append(under, string(w.KEKID))
	}
	for _, p := range append([]*kek{r.current}, r.previous...) {
		configured = append(configured, string(p.kekID()))
	}
	return fmt.Errorf("%w: data key %s (version %d) is wrapped under %s, configured is %s; configure the key the store was written with, as the current or a previous one",
		core.ErrKeyMismatch, k.ID, k.Version, strings.Join(under, ", "), strings.Join(configured, ", "))
}

// admit keeps an unlocked data key, unless it was meanwhile destroyed or data keys
// may not be in memory.
func (r *Ring) admit(key *envelope.Key, version int64, viaCurrent bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.attempts, key.ID())
	if _, ok := r.find(key.ID()); !ok || r.blocked != nil {
		return
	}
	if r.unlocked[key.ID()] == nil {
		r.keyEvent("data_key_unlocked", key.ID(), version, slog.Bool("via_current_provider", viaCurrent))
		r.unlocked[key.ID()] = &unlockedKey{key: key, viaCurrent: viaCurrent, budget: new(budget)}
	}
	r.maxVersion = max(r.maxVersion, version)
	if viaCurrent && r.lastHealthy.IsZero() {
		r.lastHealthy = time.Now()
	}
	r.publish()
}

// remember keeps err, and when to try again, for the data key named id (zero: for
// making one), and returns err. A nil err forgets.
func (r *Ring) remember(id envelope.KeyID, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		delete(r.attempts, id)
		return nil
	}
	r.attempts[id] = r.attempts[id].failed(time.Now(), err)
	return err
}

func (r *Ring) viaCurrent(id envelope.KeyID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.unlocked[id]
	return k != nil && k.viaCurrent
}

// rewrapAll adds the wraps that are missing under the current key, so that
// previous keys can be retired. A failure is logged and tried again later: the
// older wrap still serves.
func (r *Ring) rewrapAll(ctx context.Context) {
	current := r.current.kekID().Key()
	r.mu.Lock()
	keys := r.state.DataKeys
	r.mu.Unlock()
	for _, k := range keys {
		if k.State != Enabled || slices.ContainsFunc(k.Wraps, func(w core.WrappedKey) bool { return w.KEKID.Key() == current }) {
			continue
		}
		if err := r.rewrap(ctx, k.ID); err != nil {
			r.opts.Logger.Warn("a data key could not be wrapped under the current KEK; it will be tried again", "key_id", k.ID.String(), "error", err)
		}
	}
}

// rewrap adds a wrap of the data key named id under the current KEK: write, read
// back, unwrap, compare. The older wraps stay.
func (r *Ring) rewrap(ctx context.Context, id envelope.KeyID) error {
	r.mu.Lock()
	k, ok := r.find(id)
	storeID := r.state.StoreID
	r.mu.Unlock()
	if !ok {
		return fmt.Errorf("data key %s: %w", id, ErrNotEnabled)
	}
	wrap, err := r.wrapAgain(ctx, storeID, &k)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(k.Wraps, func(w core.WrappedKey) bool { return w.KEKID == wrap.KEKID }) {
		// It takes the place of one that does not unwrap, so it is proven first.
		if _, err := r.current.unwrap(ctx, id, wrap, storeID, k.Version); err != nil {
			return fmt.Errorf("verifying wrap: %w", r.heed(err))
		}
	}
	if err := r.store.AddWrap(ctx, id, wrap); err != nil {
		return fmt.Errorf("storing wrap: %w", err)
	}
	if err := r.load(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	k, _ = r.find(id)
	r.mu.Unlock()
	key, _, err := r.unwrapVia(ctx, r.current, storeID, &k)
	if err != nil {
		return fmt.Errorf("reading back wrap: %w", r.heed(err))
	}
	r.keyEvent("data_key_rewrapped", id, k.Version, slog.String("kek_id", string(wrap.KEKID)))
	r.mu.Lock()
	delete(r.unlocked, id)
	r.mu.Unlock()
	r.admit(key, k.Version, true)
	return nil
}

// wrapAgain unwraps k through a previous provider and wraps it under the current
// KEK. The plaintext does not leave it.
func (r *Ring) wrapAgain(ctx context.Context, storeID string, k *DataKeyState) (core.WrappedKey, error) {
	for _, p := range r.previous {
		kekID, err := p.resolve(ctx)
		if err != nil {
			continue
		}
		for _, w := range k.Wraps {
			if w.KEKID.Key() != kekID.Key() {
				continue
			}
			plaintext, err := p.unwrapBytes(ctx, k.ID, w, storeID, k.Version)
			if err != nil {
				continue
			}
			defer clear(plaintext)
			wrap, err := r.current.wrap(ctx, plaintext, storeID, k.Version)
			if err != nil {
				return core.WrappedKey{}, r.heed(err)
			}
			return wrap, nil
		}
	}
	return core.WrappedKey{}, r.mismatch(k)
}
