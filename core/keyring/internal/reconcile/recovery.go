package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/audit"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/flight"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/kek"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/keystate"
)

// Recovered is what Recover did for one data key.
type Recovered struct {
	DataKey envelope.KeyID
	Version int64
	// Via is the KEK that the data key was unwrapped under; empty if none of
	// those at hand unwraps it, which Err then explains.
	Via core.KEKID
	Err error
}

// Examine unwraps every enabled data key through the given providers alone. See
// keyring.Ring.Examine.
func Examine(ctx context.Context, r *Reconciler, identities []core.KeyProvider) ([]Recovered, error) {
	if err := r.loader.Load(ctx); err != nil {
		return nil, err
	}
	state := r.loader.State()
	keys := state.EnabledKeys()
	found := make([]Recovered, len(keys))
	flight.Each(keys, func(i int, k keystate.DataKeyState) {
		ctx, cancel := context.WithTimeout(ctx, r.opts.CallTimeout)
		defer cancel()
		plaintext, via, err := recoverKey(ctx, &k, state.StoreID, identities)
		clear(plaintext)
		found[i] = Recovered{DataKey: k.ID, Version: k.Version, Via: via, Err: err}
	})
	return found, nil
}

// Recover restores the data keys that no configured provider unwraps any more. See
// keyring.Ring.Recover.
func Recover(ctx context.Context, r *Reconciler, identities []core.KeyProvider) ([]Recovered, error) {
	if err := r.loader.Load(ctx); err != nil {
		return nil, err
	}
	if _, err := r.keks.Current.Resolve(ctx); err != nil {
		return nil, err
	}
	lost, err := lost(ctx, r)
	if err != nil || len(lost) == 0 {
		return nil, err
	}
	if err := replacePrimary(ctx, r, lost); err != nil {
		return nil, err
	}
	done := make([]Recovered, len(lost))
	flight.Each(lost, func(i int, k keystate.DataKeyState) {
		ctx, cancel := context.WithTimeout(ctx, r.opts.CallTimeout)
		defer cancel()
		b := kek.Binding{StoreID: r.loader.State().StoreID, Version: k.Version, Recovered: true}
		plaintext, via, err := recoverKey(ctx, &k, b.StoreID, identities)
		if err == nil {
			r.loader.Unlocked(k.Version)
			_, err = r.wrapper.addCurrent(ctx, &k, plaintext, b)
			clear(plaintext)
		}
		done[i] = Recovered{DataKey: k.ID, Version: k.Version, Via: via, Err: err}
		if err == nil {
			audit.Key(r.opts.Logger, "data_key_recovered", k.ID, k.Version, slog.String("via", string(via)))
		}
	})
	return done, r.Reload(ctx)
}

// replacePrimary makes a fresh primary if the present one is among lost.
func replacePrimary(ctx context.Context, r *Reconciler, lost []keystate.DataKeyState) error {
	state := r.loader.State()
	for _, k := range lost {
		if !k.Primary {
			continue
		}
		if err := r.makePrimary(ctx, &state, k.ID, byUs); err != nil && !errors.Is(err, keystate.ErrConflict) {
			return fmt.Errorf("making a fresh primary: %w", err)
		}
	}
	return nil
}

// Lost returns the enabled data keys that no configured provider unwraps. See
// keyring.Ring.Lost.
func Lost(ctx context.Context, r *Reconciler) ([]envelope.KeyID, error) {
	if err := r.loader.Load(ctx); err != nil {
		return nil, err
	}
	lost, err := lost(ctx, r)
	if err != nil {
		return nil, err
	}
	var ids []envelope.KeyID
	for _, k := range lost {
		ids = append(ids, k.ID)
	}
	return ids, nil
}

// lost is Lost as of the last load.
func lost(ctx context.Context, r *Reconciler) ([]keystate.DataKeyState, error) {
	state := r.loader.State()
	keys := state.EnabledKeys()
	failures := make([]error, len(keys))
	flight.Each(keys, func(i int, k keystate.DataKeyState) {
		ctx, cancel := context.WithTimeout(ctx, r.opts.CallTimeout)
		defer cancel()
		plaintext, _, err := r.unlocker.plaintext(ctx, &k, kek.Binding{StoreID: state.StoreID, Version: k.Version})
		clear(plaintext)
		failures[i] = err
	})
	var lost []keystate.DataKeyState
	for i, err := range failures {
		denied, ok := errors.AsType[*deniedElsewhereError](err)
		switch {
		case ok:
			return nil, fmt.Errorf("data key %s may be unwrapped by a key whose use is denied; have that permitted or, if that key is lost for good, take it out of the configuration: %w: %s",
				keys[i].ID, core.ErrKeyDenied, denied.Error())
		case errors.Is(err, core.ErrKeyMismatch):
			lost = append(lost, keys[i])
		case err != nil:
			return nil, fmt.Errorf("data key %s: %w", keys[i].ID, err)
		}
	}
	return lost, nil
}

// recoverKey unwraps k through whichever of identities can.
func recoverKey(ctx context.Context, k *keystate.DataKeyState, storeID string, identities []core.KeyProvider) ([]byte, core.KEKID, error) {
	var errs []error
	for _, p := range identities {
		one := kek.New(p, nil)
		kekID, err := one.Resolve(ctx)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, w := range k.Wraps {
			if w.KEKID.Key() != kekID.Key() {
				continue
			}
			plaintext, _, err := one.Unwrap(ctx, k.ID, w, kek.Binding{StoreID: storeID, Version: k.Version})
			if err == nil {
				return plaintext, w.KEKID, nil
			}
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		return nil, "", fmt.Errorf("data key %s (version %d) has no wrap under the recovery keys at hand: %w", k.ID, k.Version, core.ErrKeyMismatch)
	}
	return nil, "", errors.Join(errs...)
}
