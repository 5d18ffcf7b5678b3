// Package loader holds what the store was last seen to hold. A load is judged by
// the witness, and what it accepts goes to the cache.
package loader

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lockwood-kms/lockwood/core"
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
	current *kek.KEK
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

// New returns a Loader that has loaded nothing. Nothing seals while the current KEK is
// compromised. A load takes no longer than timeout.
func New(store keystate.Store, w *witness.Witness, c *cache.Cache, current *kek.KEK, timeout time.Duration) *Loader {
	return &Loader{store: store, witness: w, cache: c, current: current, timeout: timeout, loading: flight.NewMutex()}
}

// Load takes up what the store holds. Its error is core.ErrStoreUnavailable,
// core.ErrUnavailable, or core.ErrKeyMismatch if it holds another store.
func (l *Loader) Load(ctx context.Context) error {
	unlock, err := l.loading.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	l.mu.Lock()
	l.begun++
	mark := l.witness.Mark(primaryID(&l.state))
	l.mu.Unlock()
	limited, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	state, err := l.store.LoadRing(limited)
	return l.take(state, mark, err)
}

// take makes state, which a load that began at mark returned with err, the present
// one.
func (l *Loader) take(state keystate.State, mark witness.Mark, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done, l.ended, l.err = l.begun, time.Now(), nil
	if err == nil {
		err = l.witness.Judge(&state, mark)
	}
	if err != nil {
		l.err = fmt.Errorf("loading the ring: %w", err)
		// Where nothing was ever loaded, nothing can go on; and nothing is sealed into
		// another store.
		if l.state.StoreID == "" || errors.Is(err, core.ErrKeyMismatch) {
			l.cache.SetProblem(l.err)
		}
		return l.err
	}
	l.state = state
	l.accept()
	return nil
}

func primaryID(state *keystate.State) envelope.KeyID {
	if p := state.Primary(); p != nil {
		return p.ID
	}
	return envelope.KeyID{}
}

// accept tells the cache what may be in memory and what seals. l.mu is held, so that
// what an earlier load found does not come later.
func (l *Loader) accept() {
	ring := cache.Ring{StoreID: l.state.StoreID, Enabled: make(map[envelope.KeyID]int64), LegacyClosed: l.state.LegacyClosed}
	for _, k := range l.state.EnabledKeys() {
		ring.Enabled[k.ID] = k.Version
	}
	if p := l.state.Primary(); p != nil {
		ring.Primary, ring.Seals = p.ID, l.witness.Retired(p) == "" && !l.state.IsCompromised(l.current.ID())
	}
	l.cache.Accept(ring)
}

// Unlocked says that a data key of the given version was unwrapped, for whatever
// purpose, and has to be called before it is admitted to the cache: a primary that is
// older seals no more.
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
