package reconcile

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/kek"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/keystate"
)

// KEKs are the KEKs that are configured, and which of them may wrap what. It is safe
// for concurrent use.
type KEKs struct {
	Current  *kek.KEK
	Previous []*kek.KEK
	Recovery []*kek.Recovery

	timeout time.Duration
	log     *slog.Logger

	mu     sync.Mutex
	warned map[*kek.Recovery]bool // that it is passed over
}

// permitCurrent returns core.ErrKeyMismatch if the current KEK was named
// compromised. It then wraps nothing: what it wraps, its holder has as well.
func (s *KEKs) permitCurrent(state *keystate.State) error {
	if id := s.Current.ID(); state.IsCompromised(id) {
		return fmt.Errorf("%w: the current KEK %s was named compromised; configure another", core.ErrKeyMismatch, id)
	}
	return nil
}

// permit returns core.ErrKeyMismatch if one of wraps is under a KEK that was named
// compromised. Every wrap passes here on its way to the store, since a provider may
// wrap under another KEK than it named, as where an alias was moved.
func permit(state *keystate.State, wraps ...core.WrappedKey) error {
	for _, w := range wraps {
		if state.IsCompromised(w.KEKID) {
			return fmt.Errorf("%w: a provider wraps under %s, which was named compromised; configure another", core.ErrKeyMismatch, w.KEKID)
		}
	}
	return nil
}

// permittedRecovery returns the recovery KEKs that wrap a new data key. It learns
// of each first who it is, and waits for one that does not answer.
func (s *KEKs) permittedRecovery(ctx context.Context, state *keystate.State) ([]*kek.Recovery, error) {
	var permitted []*kek.Recovery
	for _, p := range s.Recovery {
		if _, err := p.Resolve(ctx); err != nil {
			return nil, err
		}
		if !s.passedOver(state, p) {
			permitted = append(permitted, p)
		}
	}
	return permitted, nil
}

// passedOver reports whether the recovery KEK p was named compromised, and says so
// once: nothing is wrapped under it, and nothing lacks its wrap.
func (s *KEKs) passedOver(state *keystate.State, p *kek.Recovery) bool {
	if !state.IsCompromised(p.ID()) {
		return false
	}
	s.mu.Lock()
	first := !s.warned[p]
	s.warned[p] = true
	s.mu.Unlock()
	if first {
		s.log.Warn("a recovery KEK was named compromised, and nothing is wrapped under it; configure another", slog.String("kek_id", string(p.ID())))
	}
	return true
}

// unprotected returns the recovery KEKs that k is not wrapped under, and could be.
// Of one that never answered nothing is known.
func (s *KEKs) unprotected(state *keystate.State, k *keystate.DataKeyState) []*kek.Recovery {
	var missing []*kek.Recovery
	for _, p := range s.Recovery {
		if id := p.ID(); id != "" && !k.WrappedUnder(id) && !s.passedOver(state, p) {
			missing = append(missing, p)
		}
	}
	return missing
}

// protects reports whether id is of a recovery KEK: its present version, or an older
// one while k is not wrapped under that. With wrapped, k counts as wrapped. A
// recovery KEK that was named compromised is none any more.
func (s *KEKs) protects(state *keystate.State, k *keystate.DataKeyState, id core.KEKID, wrapped bool) bool {
	return slices.ContainsFunc(s.Recovery, func(p *kek.Recovery) bool {
		now := p.ID()
		return !s.passedOver(state, p) && (now == "" || now == id || now.Key() == id.Key() && !wrapped && !k.WrappedUnder(now))
	})
}

// RefreshRecovery learns the KEK IDs of the recovery KEKs, and returns the errors of
// those that do not answer, which keep the ID that they last named.
func (s *KEKs) RefreshRecovery(ctx context.Context) (errs []error) {
	for _, p := range s.Recovery {
		limited, cancel := context.WithTimeout(ctx, s.timeout)
		if _, err := p.Refresh(limited); err != nil {
			errs = append(errs, err)
		}
		cancel()
	}
	return errs
}

// Protection returns the KEK IDs of the recovery KEKs that wrap, as far as they are
// known, and the enabled data keys that lack a wrap under one, or may lack it, while
// one has not named its KEK ID yet.
func (s *KEKs) Protection(state *keystate.State) (ids []core.KEKID, unprotected []envelope.KeyID) {
	unknown := false
	for _, p := range s.Recovery {
		switch id := p.ID(); {
		case id == "":
			unknown = true
		case !s.passedOver(state, p):
			ids = append(ids, id)
		}
	}
	for _, k := range state.EnabledKeys() {
		if unknown || len(s.unprotected(state, &k)) > 0 {
			unprotected = append(unprotected, k.ID)
		}
	}
	return ids, unprotected
}

// LiveInstance is an instance that runs on the store. See keyring.LiveInstance.
type LiveInstance struct {
	Name   string
	KEKIDs []core.KEKID
}

// lagging returns the previous KEKs that live instances need, since they can use
// them and not the current one. One that was named compromised gets nothing: then
// there is no new data key until that instance follows, unless the operator leaves it
// behind. Anyone who writes to the database can make one up.
func (s *KEKs) lagging(ctx context.Context, state *keystate.State, instances []LiveInstance, leaveBehind bool) ([]*kek.KEK, error) {
	current, err := s.Current.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	var needed []*kek.KEK
	for _, i := range instances {
		if len(i.KEKIDs) == 0 || namesKey(i.KEKIDs, current) {
			continue
		}
		for _, p := range s.Previous {
			id, err := p.Resolve(ctx)
			if err != nil {
				return nil, kek.NotCurrent(fmt.Errorf("asking a previous provider for its KEK ID: %w", err))
			}
			if !namesKey(i.KEKIDs, id) {
				continue
			}
			if state.IsCompromised(id) {
				if leaveBehind {
					continue
				}
				return nil, fmt.Errorf("instance %s can use %s, which was named compromised, and not %s; configure and restart it: %w", i.Name, id, current, core.ErrUnavailable)
			}
			if !slices.Contains(needed, p) {
				needed = append(needed, p)
			}
		}
	}
	return needed, nil
}

func namesKey(ids []core.KEKID, key core.KEKID) bool {
	return slices.ContainsFunc(ids, func(id core.KEKID) bool { return id.Key() == key.Key() })
}
