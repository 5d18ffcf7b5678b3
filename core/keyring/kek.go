package keyring

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
)

// kek is a configured provider with the KEK ID it last named, and a count of the
// calls made to it. All wrapping and unwrapping goes through it, and through it
// alone, with the aad of the data key in question.
type kek struct {
	provider core.KeyProvider
	id       atomic.Pointer[core.KEKID]
	calls    Calls
}

// Calls counts the calls to a provider in this process. The first three are the
// ones a KMS bills.
type Calls struct{ Generate, Wrap, Unwrap, Status atomic.Int64 }

func newKEK(p core.KeyProvider) *kek { return &kek{provider: p} }

// kekID returns the KEK ID last named, or "" if there was none yet.
func (k *kek) kekID() core.KEKID {
	if id := k.id.Load(); id != nil {
		return *id
	}
	return ""
}

// status asks the provider and remembers the KEK ID.
func (k *kek) status(ctx context.Context) (core.Status, error) {
	k.calls.Status.Add(1)
	s, err := k.provider.Status(ctx)
	if err != nil {
		return s, sentinel(err)
	}
	k.id.Store(&s.KEKID)
	return s, nil
}

// resolve returns the KEK ID, asking the provider if it has never named it.
func (k *kek) resolve(ctx context.Context) (core.KEKID, error) {
	if id := k.kekID(); id != "" {
		return id, nil
	}
	s, err := k.status(ctx)
	return s.KEKID, err
}

// binding is what a wrap is bound to: the store, the version of the data key in
// it, and whether recovery restored the data key, which then only opens.
type binding struct {
	storeID   string
	version   int64
	recovered bool
}

// aad is the aad of docs/format.md, section 9.1.
func (b binding) aad() core.AAD {
	version := strconv.FormatInt(b.version, 10)
	if b.recovered {
		version += " recovered"
	}
	return core.WrapAAD(b.storeID, version)
}

// generate returns a fresh data key that the provider was seen to unwrap again: a
// wrap that does not come back is noticed before anything depends on it. The data
// key is wrapped under the KEKs in also as well, each seen to unwrap, and under
// the recovery KEKs.
func (k *kek) generate(ctx context.Context, b binding, also []*kek, recovery []*recoveryKEK) (*envelope.Key, []core.WrappedKey, error) {
	k.calls.Generate.Add(1)
	dataKey, err := k.provider.GenerateDataKey(ctx, b.aad())
	if err != nil {
		return nil, nil, fmt.Errorf("generating data key: %w", sentinel(err))
	}
	defer clear(dataKey.Plaintext)
	key, err := envelope.NewKey(dataKey.Plaintext)
	if err != nil {
		return nil, nil, err
	}
	if err := k.verify(ctx, key.ID(), dataKey.Wrapped, b); err != nil {
		return nil, nil, fmt.Errorf("verifying a fresh data key: %w", err)
	}
	wraps := []core.WrappedKey{dataKey.Wrapped}
	for _, p := range also {
		w, err := p.wrap(ctx, dataKey.Plaintext, b)
		if err == nil {
			err = p.verify(ctx, key.ID(), w, b)
		}
		if err != nil {
			return nil, nil, notCurrent(fmt.Errorf("wrapping for an instance that cannot use the current KEK: %w", err))
		}
		wraps = append(wraps, w)
	}
	for _, p := range recovery {
		w, err := p.wrap(ctx, dataKey.Plaintext, b)
		if err != nil {
			return nil, nil, err
		}
		wraps = append(wraps, w)
	}
	return key, wraps, nil
}

// notCurrent takes the meaning of a denial out of another provider's error: it
// says nothing of the current one, and what it answers may be mended.
func notCurrent(err error) error {
	if errors.Is(err, core.ErrKeyDenied) {
		return fmt.Errorf("%w: %v", core.ErrUnavailable, err) //nolint:errorlint // the sentinel is left out on purpose
	}
	return err
}

// unwrap returns the data key named id, and whether w is bound as one that
// recovery restored. What unwraps to another key is core.ErrInvalidCiphertext.
// The caller clears what it gets.
func (k *kek) unwrap(ctx context.Context, id envelope.KeyID, w core.WrappedKey, b binding) (plaintext []byte, recovered bool, err error) {
	for _, b.recovered = range []bool{false, true} {
		plaintext, err = k.unwrapAs(ctx, id, w, b)
		if err == nil || !errors.Is(err, core.ErrInvalidCiphertext) {
			break
		}
	}
	return plaintext, b.recovered, err
}

// unwrapAs is unwrap for a wrap that is bound to exactly b.
func (k *kek) unwrapAs(ctx context.Context, id envelope.KeyID, w core.WrappedKey, b binding) ([]byte, error) {
	k.calls.Unwrap.Add(1)
	plaintext, err := k.provider.UnwrapDataKey(ctx, w, b.aad())
	if err != nil {
		return nil, fmt.Errorf("unwrapping under %s: %w", w.KEKID, sentinel(err))
	}
	key, err := envelope.NewKey(plaintext)
	if err != nil {
		return nil, err
	}
	if key.ID() != id {
		clear(plaintext)
		return nil, fmt.Errorf("unwrapping under %s: got data key %s instead of %s: %w", w.KEKID, key.ID(), id, core.ErrInvalidCiphertext)
	}
	return plaintext, nil
}

// verify returns nil if w unwraps to the data key named id.
func (k *kek) verify(ctx context.Context, id envelope.KeyID, w core.WrappedKey, b binding) error {
	plaintext, err := k.unwrapAs(ctx, id, w, b)
	clear(plaintext)
	return err
}

func (k *kek) wrap(ctx context.Context, dataKey []byte, b binding) (core.WrappedKey, error) {
	k.calls.Wrap.Add(1)
	w, err := k.provider.WrapDataKey(ctx, dataKey, b.aad())
	if err != nil {
		return core.WrappedKey{}, fmt.Errorf("wrapping: %w", sentinel(err))
	}
	return w, nil
}

// sentinel makes an error that is none of core's sentinels core.ErrUnavailable:
// it answers nothing, so it decides nothing.
func sentinel(err error) error {
	for _, s := range []error{core.ErrKeyMissing, core.ErrKeyMismatch, core.ErrKeyDenied, core.ErrUnavailable, core.ErrInvalidCiphertext} {
		if errors.Is(err, s) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", core.ErrUnavailable, err)
}

// attempt is the memory of a failure: until next, its error is repeated instead
// of asking again.
type attempt struct {
	err   error
	next  time.Time
	delay *backoff.ExponentialBackOff
}

// maxBackoff bounds the wait between attempts.
const maxBackoff = 30 * time.Second

// wait returns the remembered error, with the time to wait, or nil if it is time
// to try again. A nil attempt never waits.
func (a *attempt) wait(now time.Time) error {
	if a.due(now) {
		return nil
	}
	return &core.RetryAfterError{After: a.next.Sub(now), Err: a.err}
}

// due reports whether it is time to try again.
func (a *attempt) due(now time.Time) bool { return a == nil || !now.Before(a.next) }

// failed returns the memory of one more failure after a, which may be nil.
func (a *attempt) failed(now time.Time, err error) *attempt {
	if a == nil {
		delay := backoff.NewExponentialBackOff()
		delay.InitialInterval, delay.MaxInterval = 500*time.Millisecond, maxBackoff
		delay.RandomizationFactor = 0.2
		a = &attempt{delay: delay}
	}
	a.err = err
	a.next = now.Add(max(a.delay.NextBackOff(), core.RetryAfter(err)))
	return a
}
