package keyring_test

import (
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// modelKMS is a KEK of the model.
type modelKMS struct {
	*scriptedKMS
	denials int         // so many unwraps are denied from now on
	garbles bool        // what it wraps does not unwrap
	slow    bool        // an unwrap takes most of the time that a call may take
	before  cipher.AEAD // what it was before it was made anew, or nil
	moved   *modelKMS   // what it wraps under instead, or nil
	leaked  bool        // the attacker holds it
	garbled bool        // it garbled at some time
	anew    bool        // it was made anew, restored or moved at some time
	// unwrapsFor names the keys that it ever wrapped under.
	unwrapsFor map[string]bool
}

func (k *modelKMS) key() string { return "scripted:" + k.name }

// opens unwraps without a call.
func (k *modelKMS) opens(w core.WrappedKey, aad core.AAD) (plaintext []byte, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	plaintext, err := k.aead.Open(nil, nil, w.Wrapped, aad.Bytes())
	return plaintext, err == nil
}

// wrapsAs returns w as k answers: garbled, or wrapped by the KEK that k was moved to.
func (k *modelKMS) wrapsAs(w core.WrappedKey, plaintext []byte, aad core.AAD) core.WrappedKey {
	k.mu.Lock()
	to, garbles := k.moved, k.garbles
	k.mu.Unlock()
	switch {
	case garbles:
		return core.WrappedKey{KEKID: w.KEKID, Wrapped: randomBytes(len(w.Wrapped))}
	case to != nil:
		return to.scriptedKMS.seal(plaintext, aad)
	}
	return w
}

// unwrapsAs returns the KEK that unwraps w where k is asked.
func (k *modelKMS) unwrapsAs(w core.WrappedKey) *modelKMS {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.moved != nil && k.moved.key() == w.KEKID.Key() {
		return k.moved
	}
	return k
}

func (k *modelKMS) GenerateDataKey(ctx context.Context, aad core.AAD) (core.DataKey, error) {
	dataKey, err := k.scriptedKMS.GenerateDataKey(ctx, aad)
	if err == nil {
		dataKey.Wrapped = k.wrapsAs(dataKey.Wrapped, dataKey.Plaintext, aad)
	}
	return dataKey, err
}

func (k *modelKMS) WrapDataKey(ctx context.Context, dataKey []byte, aad core.AAD) (core.WrappedKey, error) {
	w, err := k.scriptedKMS.WrapDataKey(ctx, dataKey, aad)
	if err == nil {
		w = k.wrapsAs(w, dataKey, aad)
	}
	return w, err
}

func (k *modelKMS) UnwrapDataKey(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
	return k.unwrapsAs(w).scriptedKMS.UnwrapDataKey(ctx, w, aad)
}

// denies reports whether this unwrap is one of those that are denied.
func (k *modelKMS) denies() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.denials--
	return k.denials >= 0
}

// modelSlow is how long a slow unwrap takes.
const modelSlow = keyring.DefaultCallTimeout * 9 / 10

func (k *modelKMS) isSlow() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.slow
}

// pause ends a call. No two calls end at the same moment, so that what a ring does with
// an answer is done before the next answer comes, and the oracle sees the same order.
func (o *oracle) pause(ctx context.Context, d time.Duration) error {
	o.mu.Lock()
	o.calls++
	moment := time.Duration(o.calls % int64(time.Millisecond))
	o.mu.Unlock()
	timer := time.NewTimer(time.Until(time.Now().Truncate(time.Millisecond).Add(time.Millisecond + d.Truncate(time.Millisecond) + moment)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// watchedKMS is a KEK as one process calls it.
type watchedKMS struct {
	*modelKMS
	p *process
}

func (k watchedKMS) begins() int {
	k.p.probe()
	defer k.p.event()()
	return k.p.tick
}

func (k watchedKMS) ends(ctx context.Context, err error) error {
	if late := k.p.pause(ctx, 0); late != nil {
		return fmt.Errorf("%w: %w", core.ErrUnavailable, late)
	}
	return err
}

func (k watchedKMS) GenerateDataKey(ctx context.Context, aad core.AAD) (core.DataKey, error) {
	began := k.begins()
	dataKey, err := k.modelKMS.GenerateDataKey(ctx, aad)
	if err = k.ends(ctx, err); err == nil {
		k.p.generates(k.modelKMS, began, aad, dataKey.Plaintext)
	}
	return dataKey, err
}

func (k watchedKMS) WrapDataKey(ctx context.Context, dataKey []byte, aad core.AAD) (core.WrappedKey, error) {
	dataKey = slices.Clone(dataKey)
	k.begins()
	w, err := k.modelKMS.WrapDataKey(ctx, dataKey, aad)
	return w, k.ends(ctx, err)
}

func (k watchedKMS) UnwrapDataKey(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
	began := k.begins()
	slow := k.isSlow()
	plaintext, err := k.modelKMS.UnwrapDataKey(ctx, w, aad)
	if k.denies() && err == nil {
		plaintext, err = nil, core.ErrKeyDenied
	}
	if slow {
		_ = k.p.pause(ctx, modelSlow)
	}
	if err = k.ends(ctx, err); err != nil {
		plaintext = nil
	}
	k.p.unwraps(k.modelKMS, began, w, aad, plaintext, err)
	return plaintext, err
}

func (k watchedKMS) Status(ctx context.Context) (core.Status, error) {
	began := k.begins()
	s, err := k.modelKMS.Status(ctx)
	err = k.ends(ctx, err)
	k.p.status(k.modelKMS, began, err)
	return s, err
}

// watchedStore is the store as one process calls it.
type watchedStore struct {
	*memoryStore
	p *process
}

func (s watchedStore) delay() time.Duration {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if s.p.delays.IntN(20) == 0 {
		return time.Duration(s.p.delays.IntN(4000)) * time.Millisecond
	}
	return 0
}

// lost makes a call fail whose answer did not come in time. It may have had its effect.
func (s watchedStore) lost(ctx context.Context, err error) error {
	if late := s.p.pause(ctx, s.delay()); late != nil {
		return fmt.Errorf("%w: %w", core.ErrOutcomeUnknown, late)
	}
	return err
}

func (s watchedStore) LoadRing(ctx context.Context) (keyring.State, error) {
	primary, knew := s.p.knownOfPrimary()
	s.p.probe()
	state, err := s.memoryStore.LoadRing(ctx)
	state.Compromised = slices.Clone(state.Compromised)
	if err = s.lost(ctx, err); err != nil {
		return keyring.State{}, err
	}
	seen := state
	s.p.loads(&seen, primary, knew)
	return state, nil
}

func (s watchedStore) InsertDataKey(ctx context.Context, k keyring.NewDataKey) error {
	s.p.probe()
	before := s.snapshot()
	err := s.memoryStore.InsertDataKey(ctx, k)
	if err == nil {
		s.p.inserts(k)
		s.takesBack(before)
	}
	if err = s.lost(ctx, err); err == nil {
		defer s.p.event()()
		if !k.Replaces.IsZero() {
			s.p.replaced = append(s.p.replaced, k.Replaces)
		}
	}
	return err
}

// takesBack makes before what the store holds, if it is fickle, which may be the last that
// is heard of it for a while.
func (s watchedStore) takesBack(before keyring.State) {
	defer s.p.event()()
	if s.p.fickle {
		s.p.hostile = s.p.tick
		s.p.note("attack: the data key is taken back")
		silent := s.p.delays.IntN(2) == 0
		s.edit(func(s *memoryStore) {
			if s.state = before; silent {
				s.err = core.ErrStoreUnavailable
			}
		})
		s.p.markRewound()
	}
}

func (s watchedStore) AddWrap(ctx context.Context, id envelope.KeyID, w core.WrappedKey) error {
	s.p.probe()
	before := s.wraps(id)
	err := s.memoryStore.AddWrap(ctx, id, w)
	if err == nil {
		s.p.addsWrap(id, w, before)
	}
	return s.lost(ctx, err)
}

func (s watchedStore) RemoveWraps(ctx context.Context, id envelope.KeyID, kekIDs []core.KEKID) error {
	before := s.wrapsOfRows(id)
	err := s.memoryStore.RemoveWraps(ctx, id, kekIDs)
	if err == nil {
		s.p.removesWraps(id, kekIDs, before, s.wrapsOfRows(id))
	}
	return s.lost(ctx, err)
}

// wrapsOfRows returns the wraps in all rows of a data key. The attacker may have given it
// several, of which a ring may read another than the store changes.
func (s watchedStore) wrapsOfRows(id envelope.KeyID) (wraps []core.WrappedKey) {
	state := s.snapshot()
	for _, k := range state.EnabledKeys() {
		if k.ID == id {
			wraps = append(wraps, k.Wraps...)
		}
	}
	return wraps
}

func (s watchedStore) wraps(id envelope.KeyID) []core.WrappedKey {
	state := s.snapshot()
	k, _ := state.Find(id)
	return k.Wraps
}

func (s watchedStore) ReserveSeals(ctx context.Context, id envelope.KeyID, n, limit int64) (bool, error) {
	knew := s.p.knownReserved(id)
	ok, err := s.memoryStore.ReserveSeals(ctx, id, n, limit)
	lied := err == nil && !ok && s.p.lies()
	if ok = ok || lied; ok {
		s.p.grants(id, n, lied)
	}
	if err = s.lost(ctx, err); err != nil {
		return false, err
	}
	if ok {
		s.p.reserves(id, n, knew)
	}
	return ok, nil
}

// DestroyDataKey counts the records, as a store has to.
func (s watchedStore) DestroyDataKey(ctx context.Context, id envelope.KeyID) (int64, error) {
	remaining, err := s.p.destroys(id)
	return remaining, s.lost(ctx, err)
}

func (o *oracle) lies() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lavish
}

// addsWrap judges and takes down a wrap that p stored, of a data key that had others.
func (p *process) addsWrap(id envelope.KeyID, w core.WrappedKey, before []core.WrappedKey) {
	defer p.event()()
	p.note("%s wraps %s under %s", p.name, short(id), w.KEKID)
	p.adds(id, w)
	p.stored[wrapText(w)] = true
	p.endorsed[id] = p.endorsed[id] || p.excuses(id)
	if at := p.exposedAt[id]; !at.IsZero() && time.Since(at) > modelRewrap && p.recovering == 0 {
		p.violate("%s wraps %s, which it knows to be exposed", p.name, short(id))
	}
	if truth, ok := p.made[id]; ok {
		kms := p.kek(w.KEKID.Key())
		_, plain := kms.opens(w, core.WrapAAD(truth.storeID, strconv.FormatInt(truth.version, 10)))
		switch {
		case !p.genuine(id, w) && !kms.anew && !kms.garbled:
			p.violate("%s stores a wrap of %s that does not unwrap", p.name, short(id))
		case plain && !p.plain[boundKey{id, truth.version}]:
			p.violate("%s restores %s as if it had never been lost", p.name, short(id))
		}
	}
	for _, old := range before {
		if old.KEKID == w.KEKID && p.genuine(id, old) && !p.genuine(id, w) {
			p.violate("%s replaces a wrap of %s by one that does not unwrap", p.name, short(id))
		}
	}
	if k := honestKey(&p.honest, id); k != nil && p.storeID == modelStoreID {
		k.Wraps = append(slices.DeleteFunc(k.Wraps, func(o core.WrappedKey) bool { return o.KEKID == w.KEKID }), w)
	}
}

// removesWraps judges and takes down that p removed wraps of a data key.
func (p *process) removesWraps(id envelope.KeyID, kekIDs []core.KEKID, before, after []core.WrappedKey) {
	defer p.event()()
	p.note("%s removes the wraps of %s under %v", p.name, short(id), kekIDs)
	opens := func(w core.WrappedKey) bool { return p.genuine(id, w) }
	if slices.ContainsFunc(before, opens) && !slices.ContainsFunc(after, opens) && p.pruning > 0 && p.hostile < p.pruneBegan {
		p.violate("%s removed the last wrap of %s that unwraps", p.name, short(id))
	}
	if k := honestKey(&p.honest, id); k != nil && p.storeID == modelStoreID {
		k.Wraps = slices.DeleteFunc(k.Wraps, func(w core.WrappedKey) bool { return slices.Contains(kekIDs, w.KEKID) })
	}
}

// destroys destroys a data key that no record is sealed under.
func (p *process) destroys(id envelope.KeyID) (remaining int64, err error) {
	defer p.event()()
	for _, row := range p.rows {
		if row.key == id {
			remaining++
		}
	}
	if remaining > 0 {
		return remaining, keyring.ErrInUse
	}
	if _, err = p.db.DestroyDataKey(context.Background(), id); err != nil {
		return 0, err
	}
	p.note("%s destroys %s", p.name, short(id))
	if k := honestKey(&p.honest, id); k != nil && p.storeID == modelStoreID {
		k.State, k.Wraps, k.Primary = keyring.Destroyed, nil, false
	}
	return 0, nil
}

func honestKey(s *keyring.State, id envelope.KeyID) *keyring.DataKeyState {
	i := slices.IndexFunc(s.DataKeys, func(k keyring.DataKeyState) bool { return k.ID == id && k.State == keyring.Enabled })
	if i < 0 {
		return nil
	}
	return &s.DataKeys[i]
}

// isSentinel reports whether a caller of a ring can tell what err is.
func isSentinel(err error) bool {
	for _, s := range []error{
		core.ErrKeyMissing, core.ErrKeyMismatch, core.ErrKeyDenied, core.ErrUnavailable, core.ErrInvalidCiphertext, core.ErrStoreUnavailable,
		keyring.ErrConflict, keyring.ErrNotEnabled, keyring.ErrInUse, keyring.ErrLegacyClosed,
	} {
		if errors.Is(err, s) {
			return true
		}
	}
	return false
}
