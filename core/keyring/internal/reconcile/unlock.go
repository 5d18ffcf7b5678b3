package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/cache"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/flight"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/guard"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/kek"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/keystate"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/loader"
)

// unlocker brings data keys into memory. It is safe for concurrent use.
type unlocker struct {
	loader  *loader.Loader
	cache   *cache.Cache
	guard   *guard.Guard
	keks    *KEKs
	flights *flight.Group

	// refused remembers which wraps did not unwrap, and until when. Whoever writes to
	// the database can plant as many as the store holds, and each costs a call.
	refused *lru.Cache[refusal, time.Time]

	mu     sync.Mutex
	failed map[envelope.KeyID]failedUnlock
}

// refusal is a wrap that did not unwrap as the data key that it should be.
type refusal struct {
	wrap    kek.Digest
	id      envelope.KeyID
	binding kek.Binding
}

const (
	// mostRefused bounds how many are remembered, and refusedFor how long: what a
	// key service refuses by mistake comes back by itself.
	mostRefused = 1 << 15
	refusedFor  = time.Hour
)

// errRefusedBefore means that a wrap was not tried. It is core.ErrInvalidCiphertext too.
var errRefusedBefore = fmt.Errorf("did not unwrap before: %w", core.ErrInvalidCiphertext)

// failedUnlock is a failure to unlock a data key that had so many wraps. A wrap that
// was added is a new chance, and does not wait.
type failedUnlock struct {
	*flight.Failure
	wraps int
}

// unlock brings the data key named id into memory, once for all who ask.
func (u *unlocker) unlock(ctx context.Context, id envelope.KeyID) error {
	if k, _, ok := u.loader.Find(id); ok && u.cache.Get(id) == nil {
		_, blocked := u.cache.Epoch()
		if err := u.wait(&k); err != nil && blocked == nil { // many records may name one that fails
			return err
		}
	}
	return u.flights.Do(ctx, "unlock "+id.String(), func(ctx context.Context) error {
		epoch, err := u.cache.Epoch()
		if u.cache.Get(id) != nil {
			return nil
		}
		k, b, ok := u.loader.Find(id)
		if !ok {
			return fmt.Errorf("data key %s: %w", id, core.ErrInvalidCiphertext)
		}
		if err == nil {
			err = u.wait(&k)
		}
		if err != nil {
			return err
		}
		key, err := u.unwrap(ctx, &k, b)
		if err != nil {
			u.fail(&k, err)
			return err
		}
		u.admit(key, epoch)
		return nil
	})
}

// wait returns the error of the last attempt, if it is too early for another.
func (u *unlocker) wait(k *keystate.DataKeyState) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	f := u.failed[k.ID]
	if f.wraps != len(k.Wraps) {
		return nil
	}
	return f.Wait(time.Now())
}

// fail remembers that k could not be unlocked.
func (u *unlocker) fail(k *keystate.DataKeyState, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.failed) > keystate.MaxWraps { // of keys that are gone, mostly
		clear(u.failed)
	}
	f := u.failed[k.ID].Failure
	u.failed[k.ID] = failedUnlock{f.Again(time.Now(), err), len(k.Wraps)}
}

// retry forgets all failures.
func (u *unlocker) retry() {
	u.mu.Lock()
	defer u.mu.Unlock()
	clear(u.failed)
}

// admit keeps a data key that was unwrapped in epoch, unless it may not be in memory
// any more.
func (u *unlocker) admit(key *cache.Key, epoch cache.Epoch) {
	u.mu.Lock()
	delete(u.failed, key.ID())
	u.mu.Unlock()
	u.loader.Unlocked(key.Proof.Version)
	u.cache.Admit(key, epoch)
}

// unwrap unwraps k through the current provider, or else through a previous one.
func (u *unlocker) unwrap(ctx context.Context, k *keystate.DataKeyState, b kek.Binding) (*cache.Key, error) {
	plaintext, proof, err := u.plaintext(ctx, k, b)
	if err != nil {
		return nil, err
	}
	defer clear(plaintext)
	return cache.NewKey(plaintext, proof)
}

// plaintext returns the bytes of k, for the caller to clear, and which KEK unwrapped
// them. Only wraps under a key that is configured are looked at.
func (u *unlocker) plaintext(ctx context.Context, k *keystate.DataKeyState, b kek.Binding) ([]byte, cache.Proof, error) {
	plaintext, proof, tried, err := u.unwrapVia(ctx, u.keks.Current, k, b)
	if err == nil {
		proof.Current = true
		u.loader.Unlocked(b.Version)
		return plaintext, proof, nil
	}
	refused := tried > 0 && !k.Primary && errors.Is(err, core.ErrKeyDenied) && u.guard.Vouches(ctx)
	if !refused && !errors.Is(err, core.ErrInvalidCiphertext) && !errors.Is(err, core.ErrKeyMismatch) {
		return nil, cache.Proof{}, err
	}
	failures := []error{err}
	for _, p := range u.keks.Previous {
		plaintext, proof, more, err := u.unwrapVia(ctx, p, k, b)
		if err == nil {
			u.loader.Unlocked(b.Version)
			return plaintext, proof, nil
		}
		tried += more
		failures = append(failures, err)
	}
	denied := false
	for _, err := range failures {
		if errors.Is(err, core.ErrUnavailable) {
			return nil, cache.Proof{}, err
		}
		denied = denied || errors.Is(err, core.ErrKeyDenied)
	}
	// Of the failures only the text is kept: a denial of one wrap, or a previous
	// provider's, or that its key is missing, is not one of the current KEK.
	if tried > 0 {
		err = fmt.Errorf("%w: %v", core.ErrKeyMismatch, errors.Join(failures...)) //nolint:errorlint // see above
	} else {
		err = fmt.Errorf("%w (%v)", u.mismatch(k), errors.Join(failures...)) //nolint:errorlint // see above
	}
	if denied {
		err = &deniedElsewhereError{err}
	}
	return nil, cache.Proof{}, err
}

// deniedElsewhereError is why a data key does not unwrap that may do so once a denial ends,
// which is not one of the current KEK as a whole.
type deniedElsewhereError struct{ error }

// Unwrap returns the error without that.
func (e *deniedElsewhereError) Unwrap() error { return e.error }

// unwrapVia tries p on every wrap of k under p's key, and says how many there were.
func (u *unlocker) unwrapVia(ctx context.Context, p *kek.KEK, k *keystate.DataKeyState, b kek.Binding) (plaintext []byte, proof cache.Proof, tried int, err error) {
	kekID, err := p.Resolve(ctx)
	if err != nil {
		return nil, cache.Proof{}, 0, err
	}
	err = core.ErrKeyMismatch
	var noAnswer error // of one wrap, which another one's failure does not hide
	for _, w := range k.Wraps {
		if w.KEKID.Key() != kekID.Key() {
			continue
		}
		tried++
		var recovered bool
		plaintext, recovered, err = u.try(ctx, p, k.ID, w, b)
		switch {
		case err == nil:
			return plaintext, cache.Proof{StoreID: b.StoreID, Version: b.Version, KEK: w.KEKID, Recovered: recovered}, tried, nil
		case !errors.Is(err, core.ErrInvalidCiphertext) && !errors.Is(err, core.ErrKeyMismatch):
			noAnswer = err
		}
	}
	return nil, cache.Proof{}, tried, cmp.Or(noAnswer, err)
}

// try is kek.KEK.Unwrap but for what did not unwrap before. A provider that takes long may
// have answered for one binding only. The caller clears what it gets.
func (u *unlocker) try(ctx context.Context, p *kek.KEK, id envelope.KeyID, w core.WrappedKey, b kek.Binding) (plaintext []byte, recovered bool, err error) {
	for _, b.Recovered = range []bool{false, true} {
		plaintext, err = u.tryAs(ctx, p, id, w, b)
		if !errors.Is(err, core.ErrInvalidCiphertext) {
			break
		}
	}
	return plaintext, b.Recovered, err
}

// tryAs is try for a wrap that is bound to exactly b.
func (u *unlocker) tryAs(ctx context.Context, p *kek.KEK, id envelope.KeyID, w core.WrappedKey, b kek.Binding) ([]byte, error) {
	this := refusal{kek.DigestOf(w), id, b}
	if until, ok := u.refused.Get(this); ok && time.Now().Before(until) {
		return nil, fmt.Errorf("a wrap under %s %w", w.KEKID, errRefusedBefore)
	}
	plaintext, err := p.UnwrapAs(ctx, id, w, b)
	if errors.Is(err, core.ErrInvalidCiphertext) {
		u.refused.Add(this, time.Now().Add(refusedFor))
	}
	return plaintext, err
}

// verify is kek.KEK.Verify but for what did not unwrap before, which is errRefusedBefore.
func (u *unlocker) verify(ctx context.Context, p *kek.KEK, id envelope.KeyID, w core.WrappedKey, b kek.Binding) error {
	plaintext, err := u.tryAs(ctx, p, id, w, b)
	clear(plaintext)
	return err
}

// mismatch is the error that names what k is wrapped under and what is configured.
func (u *unlocker) mismatch(k *keystate.DataKeyState) error {
	var under, configured []string
	for _, w := range k.Wraps {
		under = append(under, fmt.Sprint(w.KEKID))
	}
	for _, p := range append([]*kek.KEK{u.keks.Current}, u.keks.Previous...) {
		configured = append(configured, fmt.Sprint(p.ID()))
	}
	return fmt.Errorf("%w: data key %s (version %d) is wrapped under %s, configured is %s; configure the key the store was written with, as the current or a previous one",
		core.ErrKeyMismatch, k.ID, k.Version, strings.Join(under, ", "), strings.Join(configured, ", "))
}
