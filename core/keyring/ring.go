package keyring

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/cache"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/guard"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/reconcile"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/witness"
	"github.com/lockwood-kms/lockwood/internal/pause"
)

// ErrNoLegacyKey means that a record is legacy, and that the ring has a KEK and no
// key for legacy records: another provider is current, and no env key is configured.
// It says something of the record and not of the ring, and is core.ErrKeyMissing too.
var ErrNoLegacyKey = fmt.Errorf("the record is legacy: %w", core.ErrKeyMissing)

// errReadOnly answers what a read-only ring does not do.
var errReadOnly = errors.New("the ring is read-only")

// Ring is the data keys of one store. It is safe for concurrent use; the hot path
// of Seal and Open takes no lock.
type Ring struct {
	opts       Options
	cache      *cache.Cache
	guard      *guard.Guard
	reconciler *reconcile.Reconciler

	ctx    context.Context
	cancel context.CancelFunc
	loops  sync.WaitGroup
}

// New returns a ring over the data keys in store. It does nothing yet: call
// Start, and Close when done.
func New(provider core.KeyProvider, store Store, opts *Options) *Ring {
	r := &Ring{opts: opts.withDefaults()}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.cache = cache.New(r.opts.cache())
	r.guard = guard.New(provider, r.cache, r.opts.guard())
	r.reconciler = reconcile.New(r.ctx, r.guard, witness.New(r.opts.StoreID), r.cache, store, r.opts.reconcile())
	return r
}

// Start loads the ring, unlocks the primary data key or makes the first one, and
// from then on follows the store and the provider's status until Close. The error
// says what keeps the ring from sealing; the ring runs all the same and recovers
// by itself once that is mended. A read-only ring follows nothing: it is loaded
// once, and again at Reload.
//
// The errors are core's sentinels, ErrOtherStore and ErrLegacyClosed.
func (r *Ring) Start(ctx context.Context) error {
	r.checkStatus(ctx)
	err := r.Reload(ctx)
	if r.opts.ReadOnly {
		r.reconciler.KEKs().RefreshRecovery(ctx)
	} else {
		r.loops.Go(r.followStore)
		r.loops.Go(r.followStatus)
		r.loops.Go(r.followRecovery)
	}
	if err != nil {
		return err
	}
	return r.cache.View().SealErr
}

// Reload takes up what other instances changed in the store. It returns
// core.ErrStoreUnavailable if the store did not answer; what keeps the ring from
// sealing is not an error of Reload.
func (r *Ring) Reload(ctx context.Context) error {
	return r.reconciler.Reload(ctx)
}

// Close stops the ring's own work and forgets the data keys. It does not close
// providers or store, which are the caller's.
func (r *Ring) Close() {
	r.cancel()
	r.loops.Wait()
	r.cache.Close()
}

// followStore takes up what other instances do until the ring is closed.
func (r *Ring) followStore() {
	for pause.For(r.ctx, r.opts.PollInterval) {
		_ = r.reconciler.Poll(r.ctx) // is kept as the load error, and shows in Status
	}
}

// followStatus asks the current provider for its status until the ring is closed.
// Nothing that becomes suspected meanwhile puts that off.
func (r *Ring) followStatus() {
	timer := time.NewTimer(r.guard.NextCheck())
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			r.checkStatus(r.ctx)
			timer.Reset(r.guard.NextCheck())
		case <-r.guard.Suspected():
			r.prove()
		case <-r.ctx.Done():
			return
		}
	}
}

// prove sees whether what seals can still be unwrapped.
func (r *Ring) prove() {
	ctx, cancel := context.WithTimeout(r.ctx, r.opts.CallTimeout)
	defer cancel()
	r.guard.Prove(ctx)
}

// checkStatus asks the current provider for its status, and has done what waited
// for it.
func (r *Ring) checkStatus(ctx context.Context) {
	healthy, readmitted := r.guard.Check(ctx)
	if healthy && (readmitted || r.cache.Problem() != nil) {
		r.reconciler.Retry()
	}
	if readmitted {
		_ = r.Reload(ctx) // is kept as the load error, and shows in Status
	}
}

// followRecovery is followStatus for the recovery KEKs, whose answers decide
// nothing but where a wrap is missing.
func (r *Ring) followRecovery() {
	for ok := true; ok; ok = pause.For(r.ctx, r.opts.StatusInterval) {
		for _, err := range r.reconciler.KEKs().RefreshRecovery(r.ctx) {
			if r.ctx.Err() == nil {
				r.opts.Logger.Warn("a recovery KEK does not answer; new data keys wait for it", "error", err)
			}
		}
	}
}

// RefreshRecovery asks the recovery KEKs for their KEK IDs. A running ring does so by
// itself. The errors of those that do not answer are joined.
func (r *Ring) RefreshRecovery(ctx context.Context) error {
	return errors.Join(r.reconciler.KEKs().RefreshRecovery(ctx)...)
}

// Seal appends to dst the record of plaintext bound to aad, under the primary data
// key, and returns the longer slice. With capacity in dst it does not allocate.
//
// It returns core.ErrKeyMissing, core.ErrKeyMismatch, core.ErrKeyDenied,
// core.ErrUnavailable, core.ErrStoreUnavailable or ErrLegacyClosed, and dst is
// then unchanged.
func (r *Ring) Seal(ctx context.Context, dst, plaintext, aad []byte) ([]byte, error) {
	v := r.cache.View()
	if p := v.Primary; p != nil && v.Legacy == nil {
		if record, ok := p.Seal(dst, plaintext, aad); ok {
			return record, nil
		}
	}
	return r.sealSlow(ctx, dst, plaintext, aad)
}

// sealSlow is Seal where there is something to do first. Each round ends the
// reason for which the last one could not seal, so that a few are enough unless
// other instances roll the ring all the time.
func (r *Ring) sealSlow(ctx context.Context, dst, plaintext, aad []byte) ([]byte, error) {
	if r.opts.ReadOnly {
		return nil, errReadOnly
	}
	for range 4 {
		v := r.cache.View()
		switch {
		case v.SealErr != nil:
			return nil, v.SealErr // the ring's own loops end this, not its callers
		case v.Primary == nil: // another instance rolled, and the new one is being unlocked
			if err := r.Reload(ctx); err != nil {
				return nil, err
			}
		case v.Legacy != nil:
			return v.Legacy.Seal(dst, plaintext), nil
		default:
			if record, ok := v.Primary.Seal(dst, plaintext, aad); ok {
				return record, nil
			}
			if err := r.reconciler.Refill(ctx, v.Primary); err != nil {
				return nil, err
			}
		}
	}
	return nil, fmt.Errorf("sealing: the ring keeps changing: %w", core.ErrUnavailable)
}

// Open appends to dst the plaintext of record and returns the longer slice, and
// whether the record is stale. A data key that is not in memory is unlocked first.
//
// It returns core.ErrInvalidCiphertext if the record does not open;
// core.ErrKeyMismatch if no configured KEK unwraps its data key;
// core.ErrUnavailable if its data key could not be had now, or could not be looked
// for because the database did not answer; and core.ErrKeyMissing or
// core.ErrKeyDenied. It returns ErrNoLegacyKey for a legacy record if it is only
// such records that no configured key opens.
func (r *Ring) Open(ctx context.Context, dst, record, aad []byte) (out []byte, stale bool, err error) {
	v := r.cache.View()
	if v.OpenErr != nil {
		return nil, false, v.OpenErr
	}
	out, stale, err = v.Snapshot.Open(dst, record, aad)
	if err == nil {
		return out, stale, nil
	}
	if errors.Is(err, envelope.ErrUnknownKey) {
		return r.openSlow(ctx, dst, record, aad)
	}
	if _, ok := envelope.ParseHeader(record); !ok && v.LegacyMissing {
		err = fmt.Errorf("opening record: %w", r.noLegacyKey())
	}
	return nil, false, err
}

// noLegacyKey is what a legacy record opens with while there is no key for any.
// Before the provider has named its KEK it may be that there is no key at all.
func (r *Ring) noLegacyKey() error {
	if r.guard.KEK().ID() == "" {
		return core.ErrKeyMissing
	}
	return ErrNoLegacyKey
}

// openSlow opens a record whose data key is not in memory.
func (r *Ring) openSlow(ctx context.Context, dst, record, aad []byte) (out []byte, stale bool, err error) {
	id, _ := envelope.ParseHeader(record)
	if err := r.reconciler.Unlock(ctx, id); err != nil {
		return nil, false, err
	}
	v := r.cache.View()
	if v.OpenErr != nil {
		return nil, false, v.OpenErr
	}
	out, stale, err = v.Snapshot.Open(dst, record, aad)
	if errors.Is(err, envelope.ErrUnknownKey) { // evicted or destroyed meanwhile
		err = fmt.Errorf("opening record: %w", core.ErrUnavailable)
	}
	return out, stale, err
}
