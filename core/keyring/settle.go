package keyring

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
)

// legacySampleSize is how many legacy records the env key has to prove itself on
// before the first data key is made. It needs to open one of them.
const legacySampleSize = 32

// reload returns once a load of the ring has completed that began after the call.
// Callers share loads, and a load for them begins no sooner than interval after
// the last one, so that unknown key IDs, which anyone may write into a row,
// cannot storm the database.
func (r *Ring) reload(ctx context.Context, interval time.Duration) error {
	r.mu.Lock()
	called := r.loadsBegun
	r.mu.Unlock()
	for {
		err := r.flight(ctx, "reload", func(ctx context.Context) error {
			r.mu.Lock()
			ended := r.loadEnded
			r.mu.Unlock()
			if !sleep(ctx, time.Until(ended.Add(interval))) {
				return fmt.Errorf("waiting to load the ring: %w", core.ErrUnavailable)
			}
			return r.settle(ctx)
		})
		r.mu.Lock()
		done := r.loadsDone > called
		r.mu.Unlock()
		if done || err != nil {
			return err
		}
	}
}

// settle loads the ring and does what is missing for the primary to seal. What
// keeps it from sealing becomes the ring's problem; the error is only that of
// loading.
func (r *Ring) settle(ctx context.Context) error {
	leave, err := r.settling.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if err := r.load(ctx); err != nil {
		return err
	}
	err = r.ensurePrimary(ctx)
	r.setProblem(err) // at once: what follows waits for recovery KEKs, and the ring seals without
	if err == nil {
		r.renew(ctx)
		r.rewrapAll(ctx)
	}
	return nil
}

// turnstile admits one at a time.
type turnstile chan struct{}

// enter waits for its turn, and returns what ends it.
func (t turnstile) enter(ctx context.Context) (leave func(), err error) {
	select {
	case t <- struct{}{}:
		return func() { <-t }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting to load the ring: %w: %w", core.ErrUnavailable, context.Cause(ctx))
	}
}

// load takes up the store's state. Loads take turns: of two at the same time the one
// that read earlier could end later, and undo what the other saw. None takes its turn
// for longer than CallTimeout, whatever its caller would wait.
func (r *Ring) load(ctx context.Context) error {
	leave, err := r.loading.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	r.mu.Lock()
	r.loadsBegun++
	r.mu.Unlock()
	limited, cancel := context.WithTimeout(ctx, r.opts.CallTimeout)
	defer cancel()
	state, err := r.store.LoadRing(limited)
	return r.takeUp(state, err)
}

// takeUp makes state, which a load returned with err, the ring's.
func (r *Ring) takeUp(state State, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loadsDone, r.loadEnded, r.loadErr = r.loadsBegun, time.Now(), nil
	if err != nil {
		r.loadErr = fmt.Errorf("loading the ring: %w", err)
		if r.state.StoreID == "" { // never loaded, so nothing can go on
			r.problem = r.loadErr
			r.publish()
		}
		return r.loadErr
	}
	for _, k := range state.DataKeys {
		// A wrap that was added is a new chance, and does not wait for the backoff.
		if old, ok := r.find(k.ID); ok && len(old.Wraps) != len(k.Wraps) {
			delete(r.attempts, k.ID)
		}
	}
	r.rememberCompromised(&state)
	r.state = state
	if p := state.Primary(); p != nil {
		r.reserved[p.ID] = max(r.reserved[p.ID], p.SealsReserved)
	}
	for id := range r.unlocked {
		if _, ok := r.find(id); !ok {
			delete(r.unlocked, id)
			r.keyEvent("data_key_dropped", id, 0, slog.String("reason", "no longer enabled in the store"))
		}
	}
	r.publish()
	return nil
}

// ensurePrimary returns nil once the primary may seal: unlocked through the
// current provider, which was not named compromised, and not older than a data key
// that was seen before.
func (r *Ring) ensurePrimary(ctx context.Context) error {
	if err := r.blockedErr(); err != nil {
		return err
	}
	if _, err := r.current.resolve(ctx); err != nil {
		return r.heed(err)
	}
	for range 3 {
		err := r.tryPrimary(ctx)
		if !errors.Is(err, ErrConflict) {
			return err
		}
		if err := r.load(ctx); err != nil { // another instance was first
			return err
		}
	}
	return fmt.Errorf("making a primary data key: other instances keep making one: %w", core.ErrUnavailable)
}

func (r *Ring) tryPrimary(ctx context.Context) error {
	r.mu.Lock()
	state, newest := r.state, r.maxVersion
	p := state.Primary()
	rewound := p != nil && p.SealsReserved < r.reserved[p.ID]
	r.mu.Unlock()
	if err := r.permitCurrent(); err != nil {
		return err
	}
	switch {
	case r.opts.WriteLegacy && state.LegacyClosed:
		return ErrLegacyClosed
	case p == nil && r.opts.ReadOnly:
		return nil
	case p == nil:
		if err := r.proveLegacy(ctx, &state); err != nil {
			return err
		}
		return r.makePrimary(ctx, &state, envelope.KeyID{})
	case (p.Version < newest || rewound) && !r.opts.ReadOnly:
		// Whoever restores an old database, or edits it, would otherwise choose
		// the key that seals, or rewind its seal budget.
		r.opts.Logger.Error("the store has gone back in time: its primary data key is older, or has fewer seals reserved, than was seen before; rolling to a new one",
			"key_id", p.ID.String(), "key_version", p.Version, "newest_version", newest)
		return r.makePrimary(ctx, &state, p.ID)
	}
	if err := r.unlock(ctx, p.ID); err != nil {
		return fmt.Errorf("unlocking the primary data key %s (version %d): %w", p.ID, p.Version, err)
	}
	if r.opts.ReadOnly {
		return nil
	}
	return r.fitPrimary(ctx, &state, p)
}

// fitPrimary makes sure that the primary p, which is unlocked, may seal, and rolls
// the ring where it should not go on.
func (r *Ring) fitPrimary(ctx context.Context, state *State, p *DataKeyState) error {
	r.mu.Lock()
	var how unlockedKey
	if u := r.unlocked[p.ID]; u != nil {
		how = *u
	}
	due := r.attempts[envelope.KeyID{}].due(time.Now())
	r.mu.Unlock()
	exposed := state.Exposed(p)
	if !how.viaCurrent && !how.recovered && r.opts.NoAutoRewrap && p.wrappedUnder(r.current.kekID()) {
		// Somebody added the wrap since the data key was unlocked.
		if err := r.unlockAnew(ctx, state.StoreID, p); err != nil {
			return err
		}
		how.viaCurrent = true
	}
	switch {
	case how.recovered, exposed && !how.viaCurrent:
		return r.makePrimary(ctx, state, p.ID)
	case !how.viaCurrent && r.opts.NoAutoRewrap:
		return fmt.Errorf("%w: the primary data key %s is not wrapped under the current KEK %s; run lockwood key rewrap, or set FOREST_EXECUTOR_AUTO_REWRAP=true",
			core.ErrKeyMismatch, p.ID, r.current.kekID())
	case !how.viaCurrent:
		if added, err := r.addWraps(ctx, p.ID, true); err != nil && len(added) == 0 {
			return fmt.Errorf("wrapping the primary data key under the current KEK: %w", err)
		}
	}
	if exposed && due {
		r.replace(ctx, state, p)
	}
	return nil
}

// unlockAnew unwraps p, which is unlocked through a previous provider, through the
// current one.
func (r *Ring) unlockAnew(ctx context.Context, storeID string, p *DataKeyState) error {
	u, err := r.unwrap(ctx, storeID, p)
	if err != nil {
		return fmt.Errorf("unlocking the primary data key %s (version %d): %w", p.ID, p.Version, err)
	}
	if !u.viaCurrent {
		return fmt.Errorf("%w: the wrap of the primary data key %s under the current KEK %s does not unwrap; run lockwood key rewrap", core.ErrKeyMismatch, p.ID, r.current.kekID())
	}
	r.admitAnew(u, p.Version)
	return nil
}

// renew rolls the ring where it may go on, and should not for much longer.
func (r *Ring) renew(ctx context.Context) {
	r.mu.Lock()
	state := r.state
	due := r.attempts[envelope.KeyID{}].due(time.Now())
	r.mu.Unlock()
	if p := state.Primary(); p != nil && due && !r.opts.ReadOnly && (r.nearlySpent(p) || r.tooOld(p)) {
		r.replace(ctx, &state, p)
	}
}

// proveLegacy makes sure, before a store that upstream wrote gets its first data
// key, that the env key is the one it was written with: otherwise an instance
// with a wrong key would take the store over.
func (r *Ring) proveLegacy(ctx context.Context, state *State) error {
	r.mu.Lock()
	proven := r.legacyProof
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
			core.ErrKeyMismatch, r.current.kekID(), len(sample))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.legacyProof = true
	return nil
}

// setProblem records what keeps the ring from sealing, nil for nothing, and logs
// when it changes.
func (r *Ring) setProblem(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.problem
	r.problem = err
	r.publish()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		r.opts.Logger.Error("nothing can be sealed", "state", stateWord(err), "error", err)
	case err == nil && before != nil:
		r.opts.Logger.Info("the ring seals again", "state", stateWord(nil))
	}
}
