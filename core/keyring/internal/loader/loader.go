// Package loader holds what the store was last seen to hold. A load is judged by
// the witness, and what it accepts goes to the cache.
package loader

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/cache"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/flight"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/kek"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/keystate"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/witness"
)

// Loader loads the ring. It is safe for concurrent use.
type Loader struct {
	store   keystate.Store
	witness *witness.Witness
	cache   *cache.Cache
	timeout time.Duration

	// loading admits one load at a time: of two at the same time the one that read
	// earlier could end later, and undo what the other saw.
	loading flight.Mutex

	mu    sync.Mutex
	state keystate.State
	begun int64 // how many loads have begun
	done  int64 // how many had begun when the last one ended
	ended time.Time
	err   error // of the last load
}

// New returns a Loader that has loaded nothing. A load takes no longer than timeout.
func New(store keystate.Store, w *witness.Witness, c *cache.Cache, timeout time.Duration) *Loader {
	return &Loader{store: store, witness: w, cache: c, timeout: timeout, loading: flight.NewMutex()}
}

// Load takes up what the store holds. Its error is core.ErrStoreUnavailable or
// core.ErrUnavailable.
func (l *Loader) Load(ctx context.Context) error {
	unlock, err := l.loading.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	l.mu.Lock()
	l.begun++
	l.mu.Unlock()
	limited, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	state, err := l.store.LoadRing(limited)
	return l.take(state, err)
}

// take makes state, which a load returned with err, the present one.
func (l *Loader) take(state keystate.State, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done, l.ended, l.err = l.begun, time.Now(), nil
	if err != nil {
		l.err = fmt.Errorf("loading the ring: %w", err)
		if l.state.StoreID == "" { // never loaded, so nothing can go on
			_ = l.cache.SetProblem(l.err)
		}
		return l.err
	}
	l.witness.Judge(&state)
	l.state = state
	l.accept()
	return nil
}

// accept tells the cache what may be in memory and what seals. l.mu is held, so that
// what an earlier load found does not come later.
func (l *Loader) accept() {
	ring := cache.Ring{Enabled: make(map[envelope.KeyID]bool), LegacyClosed: l.state.LegacyClosed}
	for _, k := range l.state.EnabledKeys() {
		ring.Enabled[k.ID] = true
	}
	if p := l.state.Primary(); p != nil {
		ring.Primary, ring.Seals = p.ID, !l.witness.Outdated(p)
	}
	l.cache.Accept(ring)
}

// Unlocked says that a data key of the given version was unwrapped, and has to be
// called before it is admitted to the cache: a primary that is older seals no more.
func (l *Loader) Unlocked(version int64) {
	if l.witness.Unlocked(version) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.accept()
	}
}

// State returns what the last load found. Its slices are shared, and not changed.
func (l *Loader) State() keystate.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// Find returns the enabled data key named id, and what its wraps are bound to.
func (l *Loader) Find(id envelope.KeyID) (keystate.DataKeyState, kek.Binding, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k, ok := l.state.Find(id)
	return k, kek.Binding{StoreID: l.state.StoreID, Version: k.Version}, ok
}

// Err returns why the last load failed, or nil.
func (l *Loader) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Begun returns how many loads have begun.
func (l *Loader) Begun() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begun
}

// Last returns how many loads had begun when the last one ended, and when that was.
func (l *Loader) Last() (done int64, ended time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done, l.ended
}
