package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
)

// RecoveryKEK wraps every data key besides the current KEK, for the day on which
// that one is lost. Its private half may be offline. It is safe for concurrent
// use.
type RecoveryKEK interface {
	core.Wrapper
	// KEKID returns the KEK version that wraps now. It returns
	// core.ErrKeyMissing, core.ErrKeyDenied or core.ErrUnavailable.
	KEKID(ctx context.Context) (core.KEKID, error)
}

// NewRecoveryKEK returns a recovery KEK that p holds. A wrap is seen to unwrap if
// p permits that; one that may only wrap is a recovery KEK too.
func NewRecoveryKEK(p core.KeyProvider) RecoveryKEK { return providerKEK{p} }

type providerKEK struct{ core.KeyProvider }

func (p providerKEK) KEKID(ctx context.Context) (core.KEKID, error) {
	s, err := p.Status(ctx)
	return s.KEKID, err
}

func (p providerKEK) WrapDataKey(ctx context.Context, dataKey []byte, aad core.AAD) (core.WrappedKey, error) {
	w, err := p.KeyProvider.WrapDataKey(ctx, dataKey, aad)
	if err != nil {
		return core.WrappedKey{}, err
	}
	plaintext, err := p.UnwrapDataKey(ctx, w, aad)
	defer clear(plaintext)
	if err == nil && !bytes.Equal(plaintext, dataKey) {
		err = core.ErrInvalidCiphertext
	}
	if err != nil && !errors.Is(err, core.ErrKeyDenied) {
		return core.WrappedKey{}, fmt.Errorf("verifying wrap: %w", err)
	}
	return w, nil
}

// recoveryKEK is a RecoveryKEK with the KEK ID it last named. Its errors never
// mean a denial, which would be the current provider's.
type recoveryKEK struct {
	kek RecoveryKEK
	id  atomic.Pointer[core.KEKID]
	// warned says that the log was told that it is passed over; Ring.mu guards it.
	warned bool
}

func (p *recoveryKEK) kekID() core.KEKID {
	if id := p.id.Load(); id != nil {
		return *id
	}
	return ""
}

// refresh asks for the KEK ID.
func (p *recoveryKEK) refresh(ctx context.Context) (core.KEKID, error) {
	id, err := p.kek.KEKID(ctx)
	if err != nil {
		return "", notCurrent(fmt.Errorf("asking a recovery KEK for its KEK ID: %w", sentinel(err)))
	}
	p.id.Store(&id)
	return id, nil
}

func (p *recoveryKEK) resolve(ctx context.Context) (core.KEKID, error) {
	if id := p.kekID(); id != "" {
		return id, nil
	}
	return p.refresh(ctx)
}

func (p *recoveryKEK) wrap(ctx context.Context, dataKey []byte, b binding) (core.WrappedKey, error) {
	w, err := p.kek.WrapDataKey(ctx, dataKey, b.aad())
	if err != nil {
		return core.WrappedKey{}, notCurrent(fmt.Errorf("wrapping under a recovery KEK: %w", sentinel(err)))
	}
	p.id.Store(&w.KEKID)
	return w, nil
}

// Recovered is what Recover did for one data key.
type Recovered struct {
	DataKey envelope.KeyID
	Version int64
	// Via is the KEK that the data key was unwrapped under; empty if none of
	// those at hand unwraps it, which Err then explains.
	Via core.KEKID
	Err error
}

// Examine unwraps every enabled data key through the given providers alone, and
// changes nothing: what they could recover.
func (r *Ring) Examine(ctx context.Context, identities []core.KeyProvider) ([]Recovered, error) {
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	var found []Recovered
	for _, k := range r.enabledKeys() {
		plaintext, via, err := r.recoverKey(ctx, &k, identities)
		clear(plaintext)
		found = append(found, Recovered{DataKey: k.ID, Version: k.Version, Via: via, Err: err})
	}
	return found, nil
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
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	if _, err := r.current.resolve(ctx); err != nil {
		return nil, r.heed(err)
	}
	lost, err := r.lost(ctx)
	if err != nil || len(lost) == 0 {
		return nil, err
	}
	if err := r.replacePrimary(ctx, lost); err != nil {
		return nil, err
	}
	var done []Recovered
	for _, k := range lost {
		plaintext, via, err := r.recoverKey(ctx, &k, identities)
		if err == nil {
			_, b, _ := r.bound(k.ID)
			b.recovered = true
			_, err = r.addCurrent(ctx, &k, plaintext, b)
			clear(plaintext)
		}
		done = append(done, Recovered{DataKey: k.ID, Version: k.Version, Via: via, Err: err})
		if err == nil {
			r.keyEvent("data_key_recovered", k.ID, k.Version, slog.String("via", string(via)))
		}
	}
	return done, r.Reload(ctx)
}

// replacePrimary makes a fresh primary if the present one is among lost.
func (r *Ring) replacePrimary(ctx context.Context, lost []DataKeyState) error {
	r.mu.Lock()
	state := r.state
	r.mu.Unlock()
	for _, k := range lost {
		if !k.Primary {
			continue
		}
		if err := r.makePrimary(ctx, &state, k.ID); err != nil && !errors.Is(err, ErrConflict) {
			return fmt.Errorf("making a fresh primary: %w", err)
		}
	}
	return nil
}

// Lost returns the enabled data keys that no configured provider unwraps, by
// ascending version: those that Recover would restore. It unwraps each and writes
// nothing, so that a read-only ring can be asked.
//
// That a provider does not answer is an error, and not a loss: core.ErrKeyMissing,
// core.ErrKeyDenied, core.ErrUnavailable or core.ErrStoreUnavailable.
func (r *Ring) Lost(ctx context.Context) ([]envelope.KeyID, error) {
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	lost, err := r.lost(ctx)
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
func (r *Ring) lost(ctx context.Context) ([]DataKeyState, error) {
	var lost []DataKeyState
	for _, k := range r.enabledKeys() {
		_, b, _ := r.bound(k.ID)
		plaintext, _, err := r.plaintext(ctx, b.storeID, &k)
		clear(plaintext)
		if errors.Is(err, core.ErrKeyMismatch) {
			lost = append(lost, k)
		} else if err != nil {
			return nil, fmt.Errorf("data key %s: %w", k.ID, err)
		}
	}
	return lost, nil
}

// recoverKey unwraps k through whichever of identities can.
func (r *Ring) recoverKey(ctx context.Context, k *DataKeyState, identities []core.KeyProvider) ([]byte, core.KEKID, error) {
	_, b, _ := r.bound(k.ID)
	var errs []error
	for _, p := range identities {
		one := newKEK(p)
		kekID, err := one.resolve(ctx)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, w := range k.Wraps {
			if w.KEKID.Key() != kekID.Key() {
				continue
			}
			plaintext, _, err := one.unwrap(ctx, k.ID, w, b)
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

func (r *Ring) enabledKeys() []DataKeyState {
	r.mu.Lock()
	defer r.mu.Unlock()
	var keys []DataKeyState
	for _, k := range r.state.DataKeys {
		if k.State == Enabled {
			keys = append(keys, k)
		}
	}
	return keys
}
