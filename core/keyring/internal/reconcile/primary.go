package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/audit"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/cache"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/guard"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/kek"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/keystate"
)

// legacySampleSize is how many legacy records the env key has to prove itself on
// before the first data key is made. It needs to open one of them.
const legacySampleSize = 32

// minMaxAge is the least time between two data keys that a ring makes because of
// age, which is told by the database's clock and this one's: they may differ by more
// than any maximum.
const minMaxAge = time.Hour

// ensurePrimary returns nil once the primary may seal: unlocked through the
// current provider, which was not named compromised, and not older than a data key
// that was seen before.
func (r *Reconciler) ensurePrimary(ctx context.Context) error {
	if _, blocked := r.cache.Epoch(); blocked != nil {
		return blocked
	}
	if _, err := r.keks.Current.Resolve(ctx); err != nil {
		return err
	}
	if r.guard.Mismatch() != nil {
		r.watch() // what is there now may be another
		r.healPrimary(ctx)
	}
	if err := r.guard.Mismatch(); err != nil {
		return err
	}
	for range 3 {
		err := r.tryPrimary(ctx)
		if state := r.loader.State(); err == nil && !r.opts.ReadOnly && state.Primary() == nil {
			err = fmt.Errorf("the database does not keep the primary data key that was made: %w", core.ErrUnavailable)
		}
		if !errors.Is(err, keystate.ErrConflict) {
			return err
		}
		if err := r.loader.Load(ctx); err != nil { // another instance was first
			return err
		}
	}
	return fmt.Errorf("making a primary data key: other instances keep making one: %w", core.ErrUnavailable)
}

func (r *Reconciler) tryPrimary(ctx context.Context) error {
	state := r.loader.State()
	p := state.Primary()
	if err := r.keks.permitCurrent(&state); err != nil {
		return err
	}
	switch {
	case r.opts.WriteLegacy && state.LegacyClosed:
		return keystate.ErrLegacyClosed
	case p == nil && r.opts.ReadOnly:
		return nil
	case p == nil:
		if err := r.proveLegacy(ctx, &state); err != nil {
			return err
		}
		// The first of a store, or the database does not keep what it holds.
		return r.makePrimary(ctx, &state, envelope.KeyID{}, byDatabase)
	}
	if why := r.retired(&state, p); why != "" && !r.opts.ReadOnly {
		return r.replaceRetired(ctx, &state, p, why)
	}
	if err := r.unlocker.unlock(ctx, p.ID); err != nil {
		return fmt.Errorf("unlocking the primary data key %s (version %d): %w", p.ID, p.Version, err)
	}
	if r.opts.ReadOnly {
		r.watch()
		return nil
	}
	if why := r.retired(&state, p); why != "" { // as only unlocking it showed
		return r.replaceRetired(ctx, &state, p, why)
	}
	if err := r.fitPrimary(ctx, &state, p); err != nil {
		return err
	}
	r.watch()
	return nil
}

// retired says why the primary p may not seal, though the database has it as the
// primary, or returns "".
func (r *Reconciler) retired(state *keystate.State, p *keystate.DataKeyState) string {
	if key := r.cache.Get(p.ID); key != nil && !key.Proof.Names(state.StoreID, p.Version) {
		return "its wrap is bound to another version"
	}
	return r.witness.Retired(p)
}

// replaceRetired makes a new primary in place of one that is retired, and tells so.
// Whoever restores an old database, or edits it, would otherwise choose the key that
// seals, or rewind its seal budget.
func (r *Reconciler) replaceRetired(ctx context.Context, state *keystate.State, p *keystate.DataKeyState, why string) error {
	r.mu.Lock()
	r.anomalies++
	r.mu.Unlock()
	r.opts.Logger.Error("the database has gone back in time, or was edited: its primary data key is retired; rolling to a new one",
		"key_id", p.ID.String(), "key_version", p.Version, "reason", why)
	return r.makePrimary(ctx, state, p.ID, byDatabase)
}

// healPrimary makes the wrap of the primary under the current KEK anew, which does not
// unwrap any more, where a previous KEK unwraps the data key.
func (r *Reconciler) healPrimary(ctx context.Context) {
	state := r.loader.State()
	p := state.Primary()
	if p == nil || r.opts.ReadOnly || r.opts.NoAutoRewrap || len(r.keks.Previous) == 0 || state.Exposed(p) {
		return
	}
	r.mu.Lock()
	failed := r.rewraps[p.ID]
	r.mu.Unlock()
	if !failed.Due(time.Now()) {
		return
	}
	if added, err := r.wrapper.add(ctx, p.ID, true); err != nil && len(added) == 0 {
		r.mu.Lock()
		r.rewraps[p.ID] = failed.Again(time.Now(), err)
		r.mu.Unlock()
		return // the mismatch is what is told
	}
	r.watch()
	r.guard.Prove(ctx)
}

// watch has the guard see to it that the wrap of the primary goes on unwrapping.
func (r *Reconciler) watch() {
	state := r.loader.State()
	p := state.Primary()
	if p == nil {
		return
	}
	if w, ok := r.wrapHere(p); ok {
		r.guard.Watch(guard.Canary{ID: p.ID, Wrap: w, Binding: kek.Binding{StoreID: state.StoreID, Version: p.Version}})
	} else {
		r.guard.Unwatch(p.ID)
	}
}

// wrapHere returns the wrap by which p is to be unlocked after a restart: the one under
// the present version of the current KEK, or else the one by which it was unlocked.
func (r *Reconciler) wrapHere(p *keystate.DataKeyState) (core.WrappedKey, bool) {
	w, ok := p.WrapUnder(r.keks.Current.ID())
	if key := r.cache.Get(p.ID); !ok && key != nil && key.Proof.Current {
		w, ok = p.WrapUnder(key.Proof.KEK)
	}
	return w, ok
}

// fitPrimary makes sure that the primary p, which is unlocked, may seal, and rolls
// the ring where it should not go on.
func (r *Reconciler) fitPrimary(ctx context.Context, state *keystate.State, p *keystate.DataKeyState) error {
	var proof cache.Proof
	if u := r.cache.Get(p.ID); u != nil {
		proof = u.Proof
	}
	exposed := state.Exposed(p)
	if !proof.Current && !proof.Recovered && r.opts.NoAutoRewrap && p.WrappedUnder(r.keks.Current.ID()) {
		// Somebody added the wrap since the data key was unlocked.
		if err := r.unlockAgain(ctx, state.StoreID, p); err != nil {
			return err
		}
		proof.Current = true
	}
	switch {
	case proof.Recovered, exposed && !proof.Current:
		return r.makePrimary(ctx, state, p.ID, byDatabase)
	case proof.Current && !r.wrappedHere(p):
		return fmt.Errorf("%w: the primary data key %s has no wrap under the current KEK %s any more: another instance pruned it, or somebody removed it; configure the KEK that the other instances use, or restore the wrap",
			core.ErrKeyMismatch, p.ID, r.keks.Current.ID())
	case !proof.Current && r.opts.NoAutoRewrap:
		return fmt.Errorf("%w: the primary data key %s is not wrapped under the current KEK %s; run lockwood key rewrap, or set FOREST_EXECUTOR_AUTO_REWRAP=true",
			core.ErrKeyMismatch, p.ID, r.keks.Current.ID())
	case !proof.Current:
		r.mu.Lock()
		failed := r.rewraps[p.ID]
		r.mu.Unlock()
		if err := failed.Wait(time.Now()); err != nil {
			return err
		}
		if added, err := r.wrapper.add(ctx, p.ID, true); err != nil && len(added) == 0 {
			r.mu.Lock()
			r.rewraps[p.ID] = failed.Again(time.Now(), err)
			r.mu.Unlock()
			return fmt.Errorf("wrapping the primary data key under the current KEK: %w", err)
		}
	}
	if exposed && r.mayMake() {
		r.replace(ctx, state, p)
	}
	return nil
}

// wrappedHere reports whether p has a wrap under the current KEK, in whatever version.
// Without one, what is sealed under p could not be opened after a restart.
func (r *Reconciler) wrappedHere(p *keystate.DataKeyState) bool {
	key := r.keks.Current.ID().Key()
	return slices.ContainsFunc(p.Wraps, func(w core.WrappedKey) bool { return w.KEKID.Key() == key })
}

// unlockAgain unwraps p, which is unlocked through a previous provider, through the
// current one.
func (r *Reconciler) unlockAgain(ctx context.Context, storeID string, p *keystate.DataKeyState) error {
	epoch, err := r.cache.Epoch()
	if err != nil {
		return err
	}
	key, err := r.unlocker.unwrap(ctx, p, kek.Binding{StoreID: storeID, Version: p.Version})
	if err != nil {
		return fmt.Errorf("unlocking the primary data key %s (version %d): %w", p.ID, p.Version, err)
	}
	if !key.Proof.Current {
		return fmt.Errorf("%w: the wrap of the primary data key %s under the current KEK %s does not unwrap; run lockwood key rewrap", core.ErrKeyMismatch, p.ID, r.keks.Current.ID())
	}
	r.unlocker.admit(key, epoch)
	return nil
}

// proveLegacy makes sure, before a store that upstream wrote gets its first data
// key, that the env key is the one it was written with: otherwise an instance
// with a wrong key would take the store over.
func (r *Reconciler) proveLegacy(ctx context.Context, state *keystate.State) error {
	r.mu.Lock()
	proven := r.legacyProven
	r.mu.Unlock()
	if proven || len(state.DataKeys) > 0 {
		return nil
	}
	sample, err := r.store.LegacySample(ctx, legacySampleSize)
	if err != nil {
		return fmt.Errorf("reading legacy records: %w", err)
	}
	keys := r.opts.Legacy.LegacyKeys()
	opened := 0
	for _, record := range sample {
		if _, err := keys.Open(nil, record); err == nil {
			opened++
		}
	}
	if len(sample) > 0 && opened == 0 {
		return fmt.Errorf("%w: it holds legacy records, and the configured key %s opens none of the %d tried; configure the key they were written with",
			core.ErrKeyMismatch, r.keks.Current.ID(), len(sample))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.legacyProven = true
	return nil
}

// renew rolls the ring where it may go on, and should not for much longer.
func (r *Reconciler) renew(ctx context.Context) {
	state := r.loader.State()
	p := state.Primary()
	if p == nil || r.opts.ReadOnly || !r.mayMake() {
		return
	}
	// There is still time to roll when an eighth of the budget is left.
	if p.SealsReserved > r.opts.MaxSeals-r.opts.MaxSeals/8 || r.tooOld(p) {
		r.replace(ctx, &state, p)
	}
}

// tooOld reports whether k has been the primary for long enough. What this ring made
// lately is not old, whatever the database says of the time.
func (r *Reconciler) tooOld(k *keystate.DataKeyState) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.opts.MaxAge > 0 && time.Since(k.CreatedAt) > max(r.opts.MaxAge, minMaxAge) && time.Since(r.madePrimary) > minMaxAge
}

// mayMake reports whether it is time to make a primary where it can wait.
func (r *Reconciler) mayMake() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.making.Due(time.Now())
}

// replace makes a new primary in place of p, which serves until that succeeds.
func (r *Reconciler) replace(ctx context.Context, state *keystate.State, p *keystate.DataKeyState) {
	if err := r.makePrimary(ctx, state, p.ID, byDatabase); err != nil && !errors.Is(err, keystate.ErrConflict) {
		r.opts.Logger.Warn("rolling the ring failed; it goes on under the present data key and will try again", "error", err)
	}
}

// Roll makes a new primary in place of the one named before, unless another instance
// did. With leaveBehind it does not wait for live instances that can use none but
// compromised KEKs. It returns what keeps the ring from it.
func (r *Reconciler) Roll(ctx context.Context, before envelope.KeyID, leaveBehind bool) error {
	name, by := "roll", byUs
	if leaveBehind {
		name, by = "roll and leave behind", byOperator
	}
	return r.flights.Do(ctx, name, func(ctx context.Context) error {
		state := r.loader.State()
		if p := state.Primary(); p == nil || p.ID != before {
			return r.reconcile(ctx)
		}
		return r.roll(ctx, &state, before, by)
	})
}

// rollSpent makes a new primary because the present one has no seals left.
func (r *Reconciler) rollSpent(ctx context.Context) error {
	if err := r.loader.Load(ctx); err != nil {
		return err
	}
	state := r.loader.State()
	p := state.Primary()
	switch {
	case p == nil:
		return r.reconcile(ctx)
	case r.opts.MaxSeals-r.witness.Reserved(p.ID) >= r.opts.SealBlock:
		return r.reconcile(ctx) // another instance rolled first
	}
	return r.roll(ctx, &state, p.ID, byDatabase)
}

func (r *Reconciler) roll(ctx context.Context, state *keystate.State, replaces envelope.KeyID, by cause) error {
	if err := r.makePrimary(ctx, state, replaces, by); err != nil && !errors.Is(err, keystate.ErrConflict) {
		return fmt.Errorf("rolling the ring: %w", err)
	}
	return r.reconcile(ctx)
}

// cause is on whose word a primary is made.
type cause int

// What the database says, whoever may write to it can make it say again and again.
const (
	byUs cause = iota
	byDatabase
	byOperator // who leaves instances behind that can use none but compromised KEKs
)

// How many primaries are made on the word of the database: so many at once, and then
// one at a time.
const (
	rollsAtOnce = 16
	rollEvery   = time.Minute
)

// makePrimary makes a data key that follows every version known, verifies its
// wrap, and inserts it as the primary in place of the one named replaces. It
// returns ErrConflict if another instance was first.
func (r *Reconciler) makePrimary(ctx context.Context, state *keystate.State, replaces envelope.KeyID, by cause) error {
	if state.StoreID == "" {
		return fmt.Errorf("making a data key: the database has not been migrated: %w", core.ErrStoreUnavailable)
	}
	if err := r.keks.permitCurrent(state); err != nil {
		return err
	}
	r.mu.Lock()
	err := r.making.Wait(time.Now())
	r.mu.Unlock()
	if err != nil && by != byOperator { // whose reason to fail may have been that instance
		return err
	}
	version := r.witness.NextVersion(state)
	if by == byDatabase && !r.rolls.Allow() {
		return fmt.Errorf("making a data key: the database gave cause to make %d within a short time; somebody may be editing it: %w", rollsAtOnce, core.ErrUnavailable)
	}
	epoch, err := r.cache.Epoch()
	if err != nil {
		return err
	}
	key, wraps, err := r.generate(ctx, state, version, by == byOperator)
	if err == nil {
		r.witness.Made(key.ID(), version) // the answer of the store may be lost
		err = r.store.InsertDataKey(ctx, keystate.NewDataKey{ID: key.ID(), Version: version, Replaces: replaces, Wraps: wraps})
		if errors.Is(err, keystate.ErrConflict) {
			return fmt.Errorf("inserting a data key: %w", err)
		}
	}
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.making = r.making.Again(time.Now(), err)
		return fmt.Errorf("making a data key: %w", err)
	}
	audit.Key(r.opts.Logger, "data_key_created", key.ID(), version, slog.String("kek_id", string(wraps[0].KEKID)))
	r.mu.Lock()
	r.making, r.madePrimary = nil, time.Now()
	r.mu.Unlock()
	r.witness.Superseded(replaces)
	if err := r.loader.Load(ctx); err != nil {
		return err
	}
	r.unlocker.admit(key, epoch)
	r.watch()
	return nil
}

// generate returns a fresh data key with a wrap under every KEK that is to have one.
func (r *Reconciler) generate(ctx context.Context, state *keystate.State, version int64, leaveBehind bool) (*cache.Key, []core.WrappedKey, error) {
	var also []*kek.KEK
	if r.opts.Live != nil && len(r.keks.Previous) > 0 {
		instances, err := r.opts.Live(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("asking which instances are live: %w", err)
		}
		if also, err = r.keks.lagging(ctx, state, instances, leaveBehind); err != nil {
			return nil, nil, err
		}
	}
	recovery, err := r.keks.permittedRecovery(ctx, state)
	if err != nil {
		return nil, nil, err
	}
	b := kek.Binding{StoreID: state.StoreID, Version: version}
	dataKey, wraps, err := r.keks.Current.Generate(ctx, b, also, recovery)
	if err != nil {
		return nil, nil, err
	}
	proof := cache.Proof{StoreID: b.StoreID, Version: b.Version, KEK: wraps[0].KEKID, Current: true}
	latest := r.loader.State() // another load may have shown more while the providers answered
	return cache.Adopt(dataKey, proof), wraps, permit(&latest, wraps...)
}
