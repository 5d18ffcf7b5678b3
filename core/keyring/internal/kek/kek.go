// Package kek calls the providers of a ring. All wrapping and unwrapping goes through
// it, and through it alone, with the aad of the data key in question.
package kek

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
)

// KEK is a configured provider with the KEK ID it last named. It is safe for concurrent use.
type KEK struct {
	provider core.KeyProvider
	observe  func(Answer)
	id       atomic.Pointer[core.KEKID]
}

// Operation is what a provider was asked for.
type Operation string

// The operations of a provider.
const (
	Generate Operation = "generate"
	Wrap     Operation = "wrap"
	Unwrap   Operation = "unwrap"
	Status   Operation = "status"
)

// Answer is what a provider answered to a call.
type Answer struct {
	Operation Operation
	Wrapped   core.WrappedKey // what it was to unwrap, if that was the operation
	Took      time.Duration
	Err       error // nil or one of core's sentinels
}

// Outcome says in a word how the call ended.
func (a *Answer) Outcome() string {
	switch {
	case a.Err == nil:
		return "ok"
	case errors.Is(a.Err, core.ErrKeyMissing):
		return "missing"
	case errors.Is(a.Err, core.ErrKeyMismatch):
		return "mismatch"
	case errors.Is(a.Err, core.ErrKeyDenied):
		return "denied"
	case errors.Is(a.Err, core.ErrInvalidCiphertext):
		return "invalid"
	default:
		return "unavailable"
	}
}

// New returns the KEK of a provider. observe, if not nil, is called with every
// answer.
func New(p core.KeyProvider, observe func(Answer)) *KEK {
	if observe == nil {
		observe = func(Answer) {}
	}
	return &KEK{provider: p, observe: observe}
}

// answered makes err, which a call that began at a time returned, one of core's
// sentinels, and shows it to whoever observes.
func (k *KEK) answered(op Operation, w core.WrappedKey, began time.Time, err error) error {
	if err != nil {
		err = sentinel(err)
	}
	k.observe(Answer{Operation: op, Wrapped: w, Took: time.Since(began), Err: err})
	return err
}

// Digest identifies a wrap.
type Digest [sha256.Size]byte

// DigestOf returns the digest of w.
func DigestOf(w core.WrappedKey) Digest {
	return sha256.Sum256(append([]byte(w.KEKID+"\x00"), w.Wrapped...))
}

// ID returns the KEK ID last named, or "" if there was none yet.
func (k *KEK) ID() core.KEKID {
	if id := k.id.Load(); id != nil {
		return *id
	}
	return ""
}

// Status asks the provider and remembers the KEK ID. The error is one of core's
// sentinels.
func (k *KEK) Status(ctx context.Context) (core.Status, error) {
	began := time.Now()
	s, err := k.provider.Status(ctx)
	if err == nil {
		k.id.Store(&s.KEKID)
	}
	return s, k.answered(Status, core.WrappedKey{}, began, err)
}

// Resolve returns the KEK ID, asking the provider if it has never named it.
func (k *KEK) Resolve(ctx context.Context) (core.KEKID, error) {
	if id := k.ID(); id != "" {
		return id, nil
	}
	s, err := k.Status(ctx)
	return s.KEKID, err
}

// Binding is what a wrap is bound to: the store, the version of the data key in
// it, and whether recovery restored the data key, which then only opens.
type Binding struct {
	StoreID   string
	Version   int64
	Recovered bool
}

// aad is the aad of docs/format.md, section 9.1.
func (b Binding) aad() core.AAD {
	version := strconv.FormatInt(b.Version, 10)
	if b.Recovered {
		version += " recovered"
	}
	return core.WrapAAD(b.StoreID, version)
}

// Generate returns a fresh data key that the provider was seen to unwrap again: a
// wrap that does not come back is noticed before anything depends on it. The data
// key is wrapped under the KEKs in also as well, each seen to unwrap, and under
// the recovery KEKs.
func (k *KEK) Generate(ctx context.Context, b Binding, also []*KEK, recovery []*Recovery) (*envelope.Key, []core.WrappedKey, error) {
	began := time.Now()
	dataKey, err := k.provider.GenerateDataKey(ctx, b.aad())
	if err = k.answered(Generate, core.WrappedKey{}, began, err); err != nil {
		return nil, nil, fmt.Errorf("generating data key: %w", err)
	}
	defer clear(dataKey.Plaintext)
	key, err := envelope.NewKey(dataKey.Plaintext)
	if err != nil {
		return nil, nil, err
	}
	if err := k.Verify(ctx, key.ID(), dataKey.Wrapped, b); err != nil {
		return nil, nil, fmt.Errorf("verifying a fresh data key: %w", err)
	}
	wraps := []core.WrappedKey{dataKey.Wrapped}
	for _, p := range also {
		w, err := p.Wrap(ctx, dataKey.Plaintext, b)
		if err == nil {
			err = p.Verify(ctx, key.ID(), w, b)
		}
		if err != nil {
			return nil, nil, NotCurrent(fmt.Errorf("wrapping for an instance that cannot use the current KEK: %w", err))
		}
		wraps = append(wraps, w)
	}
	for _, p := range recovery {
		w, err := p.Wrap(ctx, dataKey.Plaintext, b)
		if err != nil {
			return nil, nil, err
		}
		wraps = append(wraps, w)
	}
	return key, wraps, nil
}

// NotCurrent takes its meaning out of another provider's error: that its key is denied,
// missing or another one says nothing of the current one, and may be mended.
func NotCurrent(err error) error {
	for _, s := range []error{core.ErrKeyDenied, core.ErrKeyMissing, core.ErrKeyMismatch} {
		if errors.Is(err, s) {
			return fmt.Errorf("%w: %v", core.ErrUnavailable, err) //nolint:errorlint // the sentinel is left out on purpose
		}
	}
	return err
}

// Unwrap returns the data key named id, and whether w is bound as one that
// recovery restored. What unwraps to another key is core.ErrInvalidCiphertext.
// The caller clears what it gets.
func (k *KEK) Unwrap(ctx context.Context, id envelope.KeyID, w core.WrappedKey, b Binding) (plaintext []byte, recovered bool, err error) {
	for _, b.Recovered = range []bool{false, true} {
		plaintext, err = k.UnwrapAs(ctx, id, w, b)
		if err == nil || !errors.Is(err, core.ErrInvalidCiphertext) {
			break
		}
	}
	return plaintext, b.Recovered, err
}

// UnwrapAs is Unwrap for a wrap that is bound to exactly b.
func (k *KEK) UnwrapAs(ctx context.Context, id envelope.KeyID, w core.WrappedKey, b Binding) ([]byte, error) {
	began := time.Now()
	plaintext, err := k.provider.UnwrapDataKey(ctx, w, b.aad())
	if err = k.answered(Unwrap, w, began, err); err != nil {
		return nil, fmt.Errorf("unwrapping under %s: %w", w.KEKID, err)
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

// Verify returns nil if w unwraps to the data key named id.
func (k *KEK) Verify(ctx context.Context, id envelope.KeyID, w core.WrappedKey, b Binding) error {
	plaintext, err := k.UnwrapAs(ctx, id, w, b)
	clear(plaintext)
	return err
}

// Wrap returns the data key wrapped, and what the provider names as its KEK. The error
// is one of core's sentinels.
func (k *KEK) Wrap(ctx context.Context, dataKey []byte, b Binding) (core.WrappedKey, error) {
	began := time.Now()
	w, err := k.provider.WrapDataKey(ctx, dataKey, b.aad())
	if err = k.answered(Wrap, core.WrappedKey{}, began, err); err != nil {
		return core.WrappedKey{}, fmt.Errorf("wrapping: %w", err)
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
