// Package cache keeps the data keys that are in memory, and makes of them what Seal
// and Open use. Nothing else publishes a View.
package cache

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/audit"
)

// ErrNotLoaded means that the ring was not started, or its first load is under way.
var ErrNotLoaded = fmt.Errorf("the ring is not loaded yet: %w", core.ErrUnavailable)

var errClosed = fmt.Errorf("the ring is closed: %w", core.ErrUnavailable)

// Legacy supplies the keys of legacy records. See keyring.LegacySource.
type Legacy interface {
	LegacyKeys() envelope.LegacyKeys
	LegacyKey() *envelope.LegacyKey
}

// Options say what may be sealed and opened besides data keys, as keyring.Options.
type Options struct {
	Legacy       Legacy
	RefuseLegacy bool
	WriteLegacy  bool
	ReadOnly     bool
	Logger       *slog.Logger
}

// View is what Seal and Open need, as of one moment. It never changes.
type View struct {
	Snapshot *envelope.Snapshot
	Primary  *Key                // nil: SealErr says why, or the primary is being unlocked
	Legacy   *envelope.LegacyKey // seals instead of Primary, if not nil
	SealErr  error
	OpenErr  error // not nil: nothing opens
	// LegacyMissing says that legacy records are admitted but no key for them is
	// configured, which is another answer than that they do not open.
	LegacyMissing bool
}

// Ring is what the store holds, as far as the cache needs it: what a load found and
// the witness accepted.
type Ring struct {
	// StoreID identifies the store. Enabled holds the enabled data keys, and their
	// versions. Other keys are dropped.
	StoreID string
	Enabled map[envelope.KeyID]int64
	// Primary is the data key that records are expected under, or zero. Seals says
	// that it may seal.
	Primary envelope.KeyID
	Seals   bool
	// LegacyClosed says that the store holds no legacy records.
	LegacyClosed bool
}

// Cache holds the data keys in memory. It is safe for concurrent use; View takes no
// lock.
type Cache struct {
	opts Options
	view atomic.Pointer[View]

	mu      sync.Mutex
	ring    Ring
	keys    map[envelope.KeyID]*Key
	blocked error // why no data key may be in memory
	problem error // why nothing can be sealed, if not blocked
	epoch   Epoch
	loaded  bool // ring was set
	closed  bool
}

// Epoch counts evictions. What was unwrapped in an epoch is admitted in that one
// only.
type Epoch uint64

// New returns an empty cache, in which nothing seals or opens.
func New(opts Options) *Cache {
	c := &Cache{opts: opts, keys: make(map[envelope.KeyID]*Key)}
	c.view.Store(&View{Snapshot: envelope.NewSnapshot(nil, nil, nil), SealErr: ErrNotLoaded, OpenErr: ErrNotLoaded})
	return c
}

// View returns what Seal and Open need now.
func (c *Cache) View() *View { return c.view.Load() }

// Epoch returns the present epoch, for Admit, or why no data key may be in memory.
func (c *Cache) Epoch() (Epoch, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.epoch, c.blocked
}

// Get returns the data key named id, or nil if it is not in memory.
func (c *Cache) Get(id envelope.KeyID) *Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keys[id]
}

// Len returns how many data keys are in memory.
func (c *Cache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.keys)
}

// Admit keeps k, which was unwrapped in epoch, unless data keys were evicted since
// then or it is not enabled any more. It takes the place of one that came by another
// way if k came through the current provider and that one did not; otherwise the one
// that is there stays.
func (c *Cache) Admit(k *Key, epoch Epoch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := k.ID()
	if _, enabled := c.ring.Enabled[id]; !enabled || c.blocked != nil || c.epoch != epoch {
		return
	}
	if old := c.keys[id]; old == nil || k.Proof.Current && !old.Proof.Current {
		audit.Key(c.opts.Logger, "data_key_unlocked", id, k.Proof.Version, slog.Bool("via_current_provider", k.Proof.Current), slog.String("kek_id", string(k.Proof.KEK)))
		c.keys[id] = k
	}
	c.publish()
}

// Accept makes ring what the store holds, and drops what it does not.
func (c *Cache) Accept(ring Ring) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ring, c.loaded = ring, true
	for id, k := range c.keys {
		if _, enabled := ring.Enabled[id]; !enabled {
			delete(c.keys, id)
			audit.Key(c.opts.Logger, "data_key_dropped", id, k.Proof.Version, slog.String("reason", "no longer enabled in the store"))
		}
	}
	c.publish()
}

// Evict forgets every data key, and keeps others out until Readmit. It reports how
// many there were, and whether err is another cause than the one known.
func (c *Cache) Evict(err error) (count int, changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++ // also if it changes nothing: what was asked before is an old answer
	if c.closed || c.blocked != nil && c.blocked.Error() == err.Error() {
		return 0, false
	}
	count = len(c.keys)
	c.blocked = err
	clear(c.keys)
	c.publish()
	return count, true
}

// Readmit ends an eviction because of what was asked in epoch, unless another one came
// since then. It reports whether there was one that it ended. Nothing seals until SetProblem
// says so.
func (c *Cache) Readmit(epoch Epoch) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.blocked == nil || c.epoch != epoch {
		return false
	}
	c.blocked = nil
	c.problem = fmt.Errorf("the data keys are being unlocked: %w", core.ErrUnavailable)
	c.publish()
	return true
}

// SetProblem sets what keeps the primary from sealing, nil for nothing, and tells the
// log when it changes.
func (c *Cache) SetProblem(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.problem
	c.problem = err
	c.publish()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		c.opts.Logger.Error("nothing can be sealed", "state", StateWord(err), "error", err)
	case err == nil && before != nil:
		c.opts.Logger.Info("the ring seals again", "state", StateWord(nil))
	}
}

// Problem returns what SetProblem set.
func (c *Cache) Problem() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.problem
}

// Close forgets every data key for good.
func (c *Cache) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed, c.blocked = true, errClosed
	c.epoch++
	clear(c.keys)
	c.publish()
}

// publish makes a View of the fields that c.mu guards, which is held.
func (c *Cache) publish() {
	v := &View{OpenErr: c.blocked, SealErr: cmp.Or(c.blocked, c.problem)}
	if v.OpenErr == nil && !c.loaded { // the store may be closed to legacy records, or another one
		v.OpenErr = cmp.Or(c.problem, ErrNotLoaded)
	}
	if v.OpenErr == nil && errors.Is(c.problem, core.ErrKeyMissing) {
		v.OpenErr = c.problem
	}
	var legacy envelope.LegacyKeys
	if !c.opts.RefuseLegacy && !c.ring.LegacyClosed {
		legacy = c.opts.Legacy.LegacyKeys()
		v.LegacyMissing = len(legacy) == 0
	}
	if c.opts.WriteLegacy {
		if v.Legacy = c.opts.Legacy.LegacyKey(); v.Legacy == nil && v.SealErr == nil {
			v.SealErr = fmt.Errorf("sealing legacy records: %w", core.ErrKeyMissing)
		}
	}
	var primary *envelope.Key
	if p := c.keys[c.ring.Primary]; p != nil {
		primary = p.key
		if c.ring.Seals && v.SealErr == nil && !c.opts.ReadOnly && p.Proof.seals() && p.Proof.Names(c.ring.StoreID, c.ring.Enabled[p.ID()]) {
			v.Primary = p
		}
	}
	keys := make([]*envelope.Key, 0, len(c.keys))
	for _, k := range c.keys {
		keys = append(keys, k.key)
	}
	v.Snapshot = envelope.NewSnapshot(primary, keys, legacy)
	c.view.Store(v)
}
