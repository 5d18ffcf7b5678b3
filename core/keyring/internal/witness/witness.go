// Package witness remembers what a ring has seen of its store, which the database
// cannot take back. It asks nobody.
package witness

import (
	"cmp"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"sync"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/keystate"
)

// Witness judges what a load returned by what was seen before. It is safe for
// concurrent use.
type Witness struct {
	mu          sync.Mutex
	storeID     string // of the store that is expected, or was the first seen
	expected    bool   // by configuration
	highest     int64  // the highest version ever unlocked, or made and then seen
	keys        map[envelope.KeyID]memory
	compromised []string // keys that were named compromised, at most mostCompromised
	keks        []string // keys of KEKs that data keys were seen wrapped under, at most mostKEKs
}

// memory is what was seen of a data key.
type memory struct {
	reserved int64  // the most seals known to be reserved
	retired  string // why it never seals again, or empty
	under    uint64 // which of Witness.keks it was seen wrapped under, as bits
	exposed  bool   // one of them was named compromised
	made     int64  // the version that this process made it with, or 0
}

// superseded is why a data key is retired that another one took the place of.
const superseded = "it was superseded before"

// mostKeys bounds what is remembered of keys that the store does not hold any more,
// which whoever writes to it could make many of. What the version of a key tells
// is not forgotten with it.
const mostKeys = 100_000

// mostKEKs bounds how many KEKs are remembered. Of any other a data key is known to be
// exposed while its wrap is there.
const mostKEKs = 64

// mostCompromised bounds how many compromised keys are remembered: an operator names one
// or two, and whoever writes to the database any number. Of any other it is known that it
// is compromised while the store says so.
const mostCompromised = 2 * keystate.MaxCompromised

// New returns a Witness that has seen nothing. storeID, if not empty, is the ID of the one
// store that it accepts.
func New(storeID string) *Witness {
	return &Witness{storeID: storeID, expected: storeID != "", keys: make(map[envelope.KeyID]memory)}
}

// Mark is what was known when a load began. What becomes known while it reads, the
// load need not show.
type Mark struct {
	primary  envelope.KeyID
	reserved int64
}

// Mark returns what is known now of the data key that is expected to be the primary.
func (w *Witness) Mark(primary envelope.KeyID) Mark {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Mark{primary, w.keys[primary].reserved}
}

// Judge judges state, which a load returned that began at mark, and adds to it what
// must not be lost of earlier ones: who deletes from the database that a key was
// named compromised does not lift it from a ring that runs. It returns
// keystate.ErrOtherStore, and learns nothing, if state is of another store than is
// expected, or than the first was.
func (w *Witness) Judge(state *keystate.State, mark Mark) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.storeID == "" {
		w.storeID = state.StoreID
	}
	switch {
	case state.StoreID == w.storeID:
	case w.expected:
		return fmt.Errorf("%w: the configuration expects store %q, and the database holds %q; correct one of the two", keystate.ErrOtherStore, w.storeID, state.StoreID)
	default:
		return fmt.Errorf("%w: the database holds store %q now, and this process serves store %q; bring that back, or restart to serve the other", keystate.ErrOtherStore, state.StoreID, w.storeID)
	}
	all := slices.Concat(w.compromised, state.Compromised)
	slices.Sort(all)
	state.Compromised = slices.Compact(all)
	if len(state.Compromised) <= mostCompromised {
		w.compromised = slices.Clone(state.Compromised)
	}
	exposed := make(map[envelope.KeyID]bool)
	for _, k := range state.EnabledKeys() {
		m := w.keys[k.ID]
		m.under |= w.wrappedUnder(&k)
		m.exposed = m.exposed || state.Exposed(&k) || w.anyCompromised(m.under)
		exposed[k.ID] = m.exposed
		if m.made == k.Version {
			w.highest = max(w.highest, k.Version)
		}
		switch {
		case m.retired != "":
		case !k.Primary:
			m.retired = superseded
		case k.ID == mark.primary && k.SealsReserved < mark.reserved:
			m.retired = "fewer seals are reserved than before"
		}
		m.reserved = max(m.reserved, k.SealsReserved)
		w.keys[k.ID] = m
	}
	state.RememberExposed(exposed)
	if len(w.keys) > mostKeys {
		maps.DeleteFunc(w.keys, func(id envelope.KeyID, _ memory) bool { _, ok := exposed[id]; return !ok })
	}
	return nil
}

// wrappedUnder returns which of w.keks k is wrapped under, and adds those that are new;
// w.mu is held.
func (w *Witness) wrappedUnder(k *keystate.DataKeyState) (under uint64) {
	for _, wrap := range k.Wraps {
		i := slices.Index(w.keks, wrap.KEKID.Key())
		if i < 0 && len(w.keks) < mostKEKs {
			i, w.keks = len(w.keks), append(w.keks, wrap.KEKID.Key())
		}
		if i >= 0 {
			under |= 1 << i
		}
	}
	return under
}

// anyCompromised reports whether one of the KEKs was named compromised; w.mu is held.
func (w *Witness) anyCompromised(under uint64) bool {
	for ; under != 0; under &= under - 1 {
		if slices.Contains(w.compromised, w.keks[bits.TrailingZeros64(under)]) {
			return true
		}
	}
	return false
}

// Retired says why the primary p of a state that was judged may not seal, though it
// is the primary, or returns "".
func (w *Witness) Retired(p *keystate.DataKeyState) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.Version < w.highest {
		return "a newer one was seen"
	}
	return w.keys[p.ID].retired
}

// Unlocked says that a data key of the given version was unlocked. It reports
// whether that is the highest version so far.
func (w *Witness) Unlocked(version int64) (highest bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	highest = version > w.highest
	w.highest = max(w.highest, version)
	return highest
}

// Made says that this process made the data key named id, of the given version. Whether the
// store keeps it, and so that others are older, is known once a load shows it.
func (w *Witness) Made(id envelope.KeyID, version int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.keys[id]
	m.made = version
	w.keys[id] = m
}

// Superseded says that this process made another data key the primary in place of the one
// named id, which seals no more once the store was loaded again.
func (w *Witness) Superseded(id envelope.KeyID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.keys[id]
	m.retired = cmp.Or(m.retired, superseded)
	w.keys[id] = m
}

// Reserve says that at least n seals of the data key named id are reserved, since this
// process did so, whatever the store will say of it.
func (w *Witness) Reserve(id envelope.KeyID, n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.keys[id]
	m.reserved = max(m.reserved, n)
	w.keys[id] = m
}

// Reserved returns how many seals of the data key named id are known to be reserved.
func (w *Witness) Reserved(id envelope.KeyID) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.keys[id].reserved
}

// mostVersion is the highest version that another one follows. No store gets there by
// rolling, so that a higher one was written by hand, and says nothing.
const mostVersion = 1 << 53

// NextVersion returns the version that follows every one known.
func (w *Witness) NextVersion(state *keystate.State) int64 {
	w.mu.Lock()
	version := w.highest
	w.mu.Unlock()
	for _, k := range state.DataKeys {
		if k.Version < mostVersion {
			version = max(version, k.Version)
		}
	}
	return version + 1
}
