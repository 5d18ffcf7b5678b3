// Package witness remembers what a ring has seen of its store, which the database
// cannot take back. It asks nobody.
package witness

import (
	"errors"
	"math"
	"slices"
	"sync"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/keystate"
)

// Witness judges what a load returned by what was seen before. It is safe for
// concurrent use.
type Witness struct {
	mu          sync.Mutex
	highest     int64                    // the highest version ever unlocked
	reserved    map[envelope.KeyID]int64 // the most seals ever seen reserved
	compromised []string                 // every key ever named compromised
}

// New returns a Witness that has seen nothing.
func New() *Witness { return &Witness{reserved: make(map[envelope.KeyID]int64)} }

// Judge adds to state, which a load returned, what must not be lost of earlier
// ones: who deletes from the database that a key was named compromised does not
// lift it from a ring that runs.
func (w *Witness) Judge(state *keystate.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := slices.Concat(w.compromised, state.Compromised)
	slices.Sort(all)
	w.compromised = slices.Compact(all)
	state.Compromised = slices.Clone(w.compromised)
	if p := state.Primary(); p != nil {
		w.reserved[p.ID] = max(w.reserved[p.ID], p.SealsReserved)
	}
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

// Outdated reports whether the primary p is older than a data key that was unlocked
// before.
func (w *Witness) Outdated(p *keystate.DataKeyState) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return p.Version < w.highest
}

// Rewound reports whether the primary p is not what was seen before: it is outdated,
// or fewer seals are reserved.
func (w *Witness) Rewound(p *keystate.DataKeyState) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return p.Version < w.highest || p.SealsReserved < w.reserved[p.ID]
}

// NextVersion returns the version that follows every one known.
func (w *Witness) NextVersion(state *keystate.State) (int64, error) {
	w.mu.Lock()
	version := w.highest
	w.mu.Unlock()
	for _, k := range state.DataKeys {
		version = max(version, k.Version)
	}
	if version == math.MaxInt64 {
		return 0, errors.New("making a data key: no version follows the newest in the store")
	}
	return version + 1, nil
}
