package keyring

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/lockwood-kms/lockwood/core"
)

// Exposed reports whether k is, as far as its wraps tell, known to whoever holds
// a KEK that was named compromised. The primary is rolled for it, and no wrap is
// added.
func (s *State) Exposed(k *DataKeyState) bool {
	return slices.ContainsFunc(k.Wraps, func(w core.WrappedKey) bool { return s.banned(w.KEKID) })
}

// banned reports whether the key of id was named compromised.
func (s *State) banned(id core.KEKID) bool {
	return id != "" && slices.Contains(s.Compromised, id.Key())
}

// rememberCompromised adds to state what was named compromised in any state before it: who
// deletes that from the database does not lift it from a ring that runs. r.mu is
// held.
func (r *Ring) rememberCompromised(state *State) {
	all := slices.Concat(r.state.Compromised, state.Compromised)
	slices.Sort(all)
	state.Compromised = slices.Compact(all)
}

// permitCurrent returns core.ErrKeyMismatch if the current KEK was named
// compromised. It then wraps nothing: what it wraps, its holder has as well.
func (r *Ring) permitCurrent() error {
	id := r.current.kekID()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state.banned(id) {
		return fmt.Errorf("%w: the current KEK %s was named compromised; configure another", core.ErrKeyMismatch, id)
	}
	return nil
}

// permit returns core.ErrKeyMismatch if one of wraps is under a KEK that was named
// compromised. Every wrap passes here on its way to the store, since a provider may
// wrap under another KEK than it named, as where an alias was moved.
func (r *Ring) permit(wraps ...core.WrappedKey) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range wraps {
		if r.state.banned(w.KEKID) {
			return fmt.Errorf("%w: a provider wraps under %s, which was named compromised; configure another", core.ErrKeyMismatch, w.KEKID)
		}
	}
	return nil
}

// permittedRecovery returns the recovery KEKs that wrap a new data key. It learns
// of each first who it is, and waits for one that does not answer.
func (r *Ring) permittedRecovery(ctx context.Context) ([]*recoveryKEK, error) {
	var permitted []*recoveryKEK
	for _, p := range r.recovery {
		if _, err := p.resolve(ctx); err != nil {
			return nil, err
		}
		r.mu.Lock()
		if !r.passedOver(p) {
			permitted = append(permitted, p)
		}
		r.mu.Unlock()
	}
	return permitted, nil
}

// passedOver reports whether the recovery KEK p was named compromised, and says so
// once: nothing is wrapped under it, and nothing lacks its wrap. r.mu is held.
func (r *Ring) passedOver(p *recoveryKEK) bool {
	if !r.state.banned(p.kekID()) {
		return false
	}
	if !p.warned {
		p.warned = true
		r.opts.Logger.Warn("a recovery KEK was named compromised, and nothing is wrapped under it; configure another", slog.String("kek_id", string(p.kekID())))
	}
	return true
}
