package keyring

import (
	"context"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/kek"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/reconcile"
)

// RecoveryKEK wraps every data key besides the current KEK, for the day on which
// that one is lost. Its private half may be offline.
type RecoveryKEK = kek.RecoveryKEK

// NewRecoveryKEK returns a recovery KEK that p holds. A wrap is seen to unwrap if
// p permits that; one that may only wrap is a recovery KEK too.
func NewRecoveryKEK(p core.KeyProvider) RecoveryKEK { return kek.NewRecoveryKEK(p) }

// Expect says that records under the data keys of ids are about to be opened. It
// loads the ring at most once for all that are not known, where Open would for each
// record. It returns core.ErrUnavailable if the store did not answer; that a data key
// does not exist is no error, which Open then says at once.
func (r *Ring) Expect(ctx context.Context, ids ...envelope.KeyID) error {
	return r.reconciler.Expect(ctx, ids...)
}

// Roll makes a new primary data key; the present one goes on opening. It returns
// what keeps the ring from it, as Seal does, or nil also if another instance
// rolled at the same time.
func (r *Ring) Roll(ctx context.Context) error { return r.roll(ctx, false) }

// RollPast is Roll, and does not wait for live instances that can use no KEK but
// compromised ones: they cannot open what is sealed from then on. That they are live is
// the database's word, and anyone who writes to it can make one up.
func (r *Ring) RollPast(ctx context.Context) error { return r.roll(ctx, true) }

func (r *Ring) roll(ctx context.Context, leaveBehind bool) error {
	if r.opts.ReadOnly {
		return errReadOnly
	}
	before := r.Status().Primary
	if err := r.Reload(ctx); err != nil {
		return err
	}
	if err := r.cache.View().SealErr; err != nil {
		return err
	}
	return r.reconciler.Roll(ctx, before, leaveBehind)
}

// Rewrap adds to every enabled data key the wraps that it lacks, under the current
// version of the current KEK and under each recovery KEK, and returns those that
// it added. Older wraps stay. Data keys that are exposed (see State.Exposed) are left
// out: they are to be rolled, and not to be kept.
//
// The errors of all data keys are joined: core's sentinels, and
// core.ErrStoreUnavailable. What could be added is, unless the current KEK was named
// compromised, which is core.ErrKeyMismatch.
func (r *Ring) Rewrap(ctx context.Context) (added []core.KEKID, err error) {
	if r.opts.ReadOnly {
		return nil, errReadOnly
	}
	return reconcile.Rewrap(ctx, r.reconciler)
}

// MissingWraps returns the wraps that Rewrap would add, by ascending version of the
// data key, as far as the KEK IDs are known: a recovery KEK that has not answered yet
// has none. It asks nobody.
func (r *Ring) MissingWraps() []WrapID { return reconcile.MissingWraps(r.reconciler) }

// UnprovenError names the data keys that keep all of their wraps.
type UnprovenError = reconcile.UnprovenError

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
	return reconcile.Prunable(r.reconciler, keep, rewrapped)
}

// Prune removes what Prunable returns, and returns what it removed. Of each data
// key it first sees the wrap under the current KEK unwrap, so that nothing is
// removed on the word of the database.
//
// It returns core's sentinels and core.ErrStoreUnavailable; and an *UnprovenError, once
// it removed the others, where that wrap does not unwrap and so all wraps of its data
// key stay.
func (r *Ring) Prune(ctx context.Context, keep func(core.KEKID) bool) (removed []WrapID, err error) {
	if r.opts.ReadOnly {
		return nil, errReadOnly
	}
	return reconcile.Prune(ctx, r.reconciler, keep)
}

// Destroy destroys the data key named id for good. It returns ErrInUse, with how
// many records remain, while one is sealed under it; ErrConflict for the primary;
// ErrNotEnabled for a key that is not enabled; and core.ErrStoreUnavailable.
func (r *Ring) Destroy(ctx context.Context, id envelope.KeyID) (remaining int64, err error) {
	if r.opts.ReadOnly {
		return 0, errReadOnly
	}
	return reconcile.Destroy(ctx, r.reconciler, id)
}

// DestroyUnused destroys, for good, those of the data keys that are enabled, not the
// primary, and that no record is sealed under, and returns them, and those that records
// are still sealed under. It reads the records once for a thousand data keys. It returns
// core.ErrStoreUnavailable, and what was destroyed until then.
func (r *Ring) DestroyUnused(ctx context.Context, ids []envelope.KeyID) (destroyed, inUse []envelope.KeyID, err error) {
	if r.opts.ReadOnly {
		return nil, nil, errReadOnly
	}
	return reconcile.DestroyUnused(ctx, r.reconciler, ids)
}

// Recovered is what Recover did for one data key.
type Recovered = reconcile.Recovered

// Examine unwraps every enabled data key through the given providers alone, and
// changes nothing: what they could recover.
func (r *Ring) Examine(ctx context.Context, identities []core.KeyProvider) ([]Recovered, error) {
	return reconcile.Examine(ctx, r.reconciler, identities)
}

// Lost returns the enabled data keys that no configured provider unwraps, by
// ascending version: those that Recover would restore. It unwraps each and writes
// nothing, so that a read-only ring can be asked.
//
// That a provider does not answer, or denies, is an error, and not a loss:
// core.ErrKeyMissing, core.ErrKeyDenied, core.ErrUnavailable or
// core.ErrStoreUnavailable. A previous provider whose key is lost for good has to be
// taken out of the configuration first.
func (r *Ring) Lost(ctx context.Context) ([]envelope.KeyID, error) {
	return reconcile.Lost(ctx, r.reconciler)
}

// Recover restores, for the current KEK, the data keys that no configured provider
// unwraps any more, through identities, which hold the private halves of recovery
// KEKs. It makes a fresh primary first: whoever holds a public half may have
// written a wrap under it, so a data key that came through one only opens, which
// is bound into the wrap that it gets.
//
// It returns what it did for each of the data keys that Lost names, which may be
// none. A data key that could not be restored is told by its Recovered; the error is
// one of those of Lost, Roll and Reload.
func (r *Ring) Recover(ctx context.Context, identities []core.KeyProvider) ([]Recovered, error) {
	if r.opts.ReadOnly {
		return nil, errReadOnly
	}
	return reconcile.Recover(ctx, r.reconciler, identities)
}
