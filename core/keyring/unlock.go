package keyring

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
		key, err := r.unwrap(ctx, storeID, &k)
		if err != nil {
			return r.remember(id, err)
		}
		r.admit(key, k.Version)
		return nil
	})
}

// unwrap unwraps k through the current provider, or else through a previous one.
func (r *Ring) unwrap(ctx context.Context, storeID string, k *DataKeyState) (*unlockedKey, error) {
	plaintext, how, err := r.plaintext(ctx, storeID, k)
	if err != nil {
		return nil, err
	}
	defer clear(plaintext)
	how.key, err = envelope.NewKey(plaintext)
	how.budget = new(budget)
	return &how, err
}

// plaintext returns the bytes of k, for the caller to clear, and how they were
// had: how.key is not set. Only wraps under a key that is configured are looked
// at.
func (r *Ring) plaintext(ctx context.Context, storeID string, k *DataKeyState) (plaintext []byte, how unlockedKey, err error) {
	plaintext, recovered, tried, err := r.unwrapVia(ctx, r.current, storeID, k)
	if err == nil {
		return plaintext, unlockedKey{viaCurrent: true, recovered: recovered}, nil
	}
	if !errors.Is(err, core.ErrInvalidCiphertext) && !errors.Is(err, core.ErrKeyMismatch) {
		return nil, unlockedKey{}, r.heed(err)
	}
	failures := []error{err}
	for _, p := range r.previous {
		plaintext, recovered, more, err := r.unwrapVia(ctx, p, storeID, k)
		if err == nil {
			return plaintext, unlockedKey{recovered: recovered}, nil
		}
		tried += more
		failures = append(failures, err)
	}
	for _, err := range failures {
		if errors.Is(err, core.ErrUnavailable) {
			return nil, unlockedKey{}, err
		}
	}
	if tried > 0 {
		// Of the failures only the text is kept: a previous provider's denial, or that
		// its key is missing, is not the current one's.
		return nil, unlockedKey{}, fmt.Errorf("%w: %v", core.ErrKeyMismatch, errors.Join(failures...)) //nolint:errorlint // see above
	}
	return nil, unlockedKey{}, r.mismatch(k)
}

// unwrapVia tries p on every wrap of k under p's key, and says how many there were.
func (r *Ring) unwrapVia(ctx context.Context, p *kek, storeID string, k *DataKeyState) (plaintext []byte, recovered bool, tried int, err error) {
	kekID, err := p.resolve(ctx)
	if err != nil {
		return nil, false, 0, err
	}
	err = core.ErrKeyMismatch
	for _, w := range k.Wraps {
		if w.KEKID.Key() != kekID.Key() {
			continue
		}
		tried++
		plaintext, recovered, err = p.unwrap(ctx, k.ID, w, binding{storeID: storeID, version: k.Version})
		if err == nil {
			return plaintext, recovered, tried, nil
		}
	}
	return nil, false, tried, err
}

// mismatch is the error that names what k is wrapped under and what is configured.
func (r *Ring) mismatch(k *DataKeyState) error {
	var under, configured []string
	for _, w := range k.Wraps {
		under = append(under, fmt.Sprint(w.KEKID))
	}
	for _, p := range append([]*kek{r.current}, r.previous...) {
		configured = append(configured, fmt.Sprint(p.kekID()))
	}
	return fmt.Errorf("%w: data key %s (version %d) is wrapped under %s, configured is %s; configure the key the store was written with, as the current or a previous one",
		core.ErrKeyMismatch, k.ID, k.Version, strings.Join(under, ", "), strings.Join(configured, ", "))
}

// admit keeps an unlocked data key, unless it was meanwhile destroyed or data keys
// may not be in memory.
func (r *Ring) admit(u *unlockedKey, version int64) {
	id := u.key.ID()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.attempts, id)
	if _, ok := r.find(id); !ok || r.blocked != nil {
		return
	}
	if r.unlocked[id] == nil {
		r.keyEvent("data_key_unlocked", id, version, slog.Bool("via_current_provider", u.viaCurrent))
		r.unlocked[id] = u
	}
	r.maxVersion = max(r.maxVersion, version)
	if u.viaCurrent && r.lastHealthy.IsZero() {
		r.lastHealthy = time.Now()
	}
	r.publish()
}

// admitAnew is admit for a data key that may be unlocked another way already.
func (r *Ring) admitAnew(u *unlockedKey, version int64) {
	r.mu.Lock()
	delete(r.unlocked, u.key.ID())
	r.mu.Unlock()
	r.admit(u, version)
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
