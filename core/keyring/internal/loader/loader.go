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

	mu      sync.Mutex
	state   keystate.State
	enabled map[envelope.KeyID]int // where in state.DataKeys
	begun   int64                  // how many looks have begun
	done    int64                  // how many had begun when the last one ended
	ended   time.Time              // when the last load did
	err     error                  // of the last look
}

// trustFor is how long a load may serve on the word of the store that nothing changed
// since.
const trustFor = 5 * time.Minute

// New returns a Loader that has loaded nothing. Nothing seals while the current KEK is
// compromised. A load takes no longer than timeout.
func New(store keystate.Store, w *witness.Witness, c *cache.Cache, current *kek.KEK, timeout time.Duration) *Loader {
	return &Loader{store: store, witness: w, cache: c, current: current, timeout: timeout, loading: flight.NewMutex()}
}

// Load takes up what the store holds. Its error is core.ErrStoreUnavailable,
// core.ErrUnavailable, or core.ErrKeyMismatch if it holds another store.
func (l *Loader) Load(ctx context.Context) error {
	unlock, mark, err := l.begin(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	limited, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	state, err := l.store.LoadRing(limited)
	return l.take(state, mark, err)
}

// Current reports whether what was loaded last is what the store holds, by its revision.
// It asks for that and nothing else, and says no where there is no revision, where the
// last look failed, or where the last load is long ago: a database that lies can put off
// a load, and not for ever. The error is that of Load.
func (l *Loader) Current(ctx context.Context) (bool, error) {
	unlock, mark, err := l.begin(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	l.mu.Lock()
	known := l.state.Revision
	if l.err != nil || time.Since(l.ended) > trustFor {
		known = ""
	}
	l.mu.Unlock()
	if known == "" {
		return false, nil
	}
	limited, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	revision, err := l.store.Revision(limited)
	if err != nil {
		return false, l.take(keystate.State{}, mark, err)
	}
	if revision != known {
		return false, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = l.begun
	return true, nil
}

// begin waits for the turn to look at the store.
func (l *Loader) begin(ctx context.Context) (unlock func(), mark witness.Mark, err error) {
	if unlock, err = l.loading.Lock(ctx); err != nil {
		return nil, witness.Mark{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begun++
	return unlock, l.witness.Mark(primaryID(&l.state)), nil
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
	l.state, l.enabled = state, make(map[envelope.KeyID]int, len(state.DataKeys))
	for i, k := range state.DataKeys {
		if k.State == keystate.Enabled {
			l.enabled[k.ID] = i
		}
	}
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
		// Of a data key that has two rows another may say its version than the one that
		// says that it is the primary.
		ring.Primary = p.ID
		ring.Seals = ring.Enabled[p.ID] == p.Version && l.witness.Retired(p) == "" && !l.state.IsCompromised(l.current.ID())
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
	i, ok := l.enabled[id]
	if !ok {
		return keystate.DataKeyState{}, kek.Binding{StoreID: l.state.StoreID}, false
	}
	k := l.state.DataKeys[i]
	return k, kek.Binding{StoreID: l.state.StoreID, Version: k.Version}, true
}

// Err returns why the last look at the store failed, or nil.
func (l *Loader) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Begun returns how many looks at the store have begun, by Load and Current.
func (l *Loader) Begun() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begun
}

// Last returns how many looks had begun when the last one ended, and when the last load
// did.
func (l *Loader) Last() (done int64, ended time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done, l.ended
}
