package keyring

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
)

// ErrLegacyClosed means that the ring was told to write legacy records into a
// store that refuses them.
var ErrLegacyClosed = errors.New("the store is closed to legacy records")

// ErrNoLegacyKey means that a record is legacy, and that the ring has a KEK and no
// key for legacy records: another provider is current, and no env key is configured.
// It says something of the record and not of the ring, and is core.ErrKeyMissing too.
var ErrNoLegacyKey = fmt.Errorf("the record is legacy: %w", core.ErrKeyMissing)

// errReadOnly answers what a read-only ring does not do.
var errReadOnly = errors.New("the ring is read-only")

// Ring is the data keys of one store. It is safe for concurrent use; the hot path
// of Seal and Open takes no lock.
type Ring struct {
	opts     Options
	store    Store
	current  *kek
	previous []*kek
	recovery []*recoveryKEK

	view    atomic.Pointer[view]
	flights singleflight.Group

	// ctx outlives any caller: work that many wait for must not end because one
	// of them gave up.
	ctx    context.Context
	cancel context.CancelFunc
	loops  sync.WaitGroup

	// settling admits one settle at a time, and loading one load, so that an older
	// state never overwrites a newer one. Who settles may load.
	settling, loading turnstile

	mu          sync.Mutex
	state       State
	unlocked    map[envelope.KeyID]*unlockedKey
	attempts    map[envelope.KeyID]*attempt // failed unlocks; the zero ID is making a primary
	rewraps     map[envelope.KeyID]*attempt // failed rewraps
	maxVersion  int64                       // the highest version ever unlocked
	reserved    map[envelope.KeyID]int64    // the most seals ever seen reserved
	legacyProof bool                        // a legacy key opened what was there before the first data key
	blocked     error                       // why no data key may be in memory
	problem     error                       // why nothing can be sealed, if not blocked
	lastHealthy time.Time
	warnings    []string
	madePrimary time.Time // when this ring last made one
	loadsBegun  int64     // how many loads have begun
	loadsDone   int64     // how many had begun when the last one ended
	loadEnded   time.Time
	loadErr     error
}

// unlockedKey is a data key in memory.
type unlockedKey struct {
	key *envelope.Key
	// viaCurrent says that the current provider unwrapped it, without which
	// nothing is sealed under it.
	viaCurrent bool
	// recovered says that recovery restored it. Whoever held the public half of a
	// recovery KEK may have made it, so it opens and never seals.
	recovered bool
	budget    *budget
}

// view is what Seal and Open need, as of one moment.
type view struct {
	snapshot *envelope.Snapshot
	primary  *unlockedKey        // nil: sealErr says why
	legacy   *envelope.LegacyKey // seals instead of primary, if not nil
	sealErr  error
	openErr  error // not nil: nothing opens
	// legacyMissing says that legacy records are admitted but no key for them is
	// configured, which is another answer than that they do not open.
	legacyMissing bool
}

// New returns a ring over the data keys in store. It does nothing yet: call
// Start, and Close when done.
func New(provider core.KeyProvider, store Store, opts *Options) *Ring {
	r := &Ring{
		opts:     opts.withDefaults(),
		store:    store,
		current:  newKEK(provider),
		unlocked: make(map[envelope.KeyID]*unlockedKey),
		attempts: make(map[envelope.KeyID]*attempt),
		rewraps:  make(map[envelope.KeyID]*attempt),
		reserved: make(map[envelope.KeyID]int64),
		settling: make(turnstile, 1),
		loading:  make(turnstile, 1),
	}
	for _, p := range r.opts.Previous {
		r.previous = append(r.previous, newKEK(p))
	}
	for _, p := range r.opts.Recovery {
		r.recovery = append(r.recovery, &recoveryKEK{kek: p})
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.view.Store(&view{snapshot: envelope.NewSnapshot(nil, nil, nil), sealErr: errNotStarted, openErr: errNotStarted})
	return r
}

var errNotStarted = fmt.Errorf("the ring is not loaded yet: %w", core.ErrUnavailable)

// Start loads the ring, unlocks the primary data key or makes the first one, and
// from then on follows the store and the provider's status until Close. The error
// says what keeps the ring from sealing; the ring runs all the same and recovers
// by itself once that is mended. A read-only ring follows nothing: it is loaded
// once, and again at Reload.
//
// The errors are core's sentinels and ErrLegacyClosed.
func (r *Ring) Start(ctx context.Context) error {
	r.checkStatus(ctx)
	err := r.Reload(ctx)
	if r.opts.ReadOnly {
		r.refreshRecovery(ctx)
	} else {
		r.loops.Go(r.followStore)
		r.loops.Go(r.followStatus)
		r.loops.Go(r.followRecovery)
	}
	if err != nil {
		return err
	}
	return r.view.Load().sealErr
}

// Reload takes up what other instances changed in the store. It returns
// core.ErrStoreUnavailable if the store did not answer; what keeps the ring from
// sealing is not an error of Reload.
func (r *Ring) Reload(ctx context.Context) error {
	return r.reload(ctx, 0)
}

// Close stops the ring's own work and forgets the data keys. It does not close
// providers or store, which are the caller's.
func (r *Ring) Close() {
	r.cancel()
	r.loops.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blocked = fmt.Errorf("the ring is closed: %w", core.ErrUnavailable)
	clear(r.unlocked)
	r.publish()
}

// Seal appends to dst the record of plaintext bound to aad, under the primary data
// key, and returns the longer slice. With capacity in dst it does not allocate.
//
// It returns core.ErrKeyMissing, core.ErrKeyMismatch, core.ErrKeyDenied,
// core.ErrUnavailable, core.ErrStoreUnavailable or ErrLegacyClosed, and dst is
// then unchanged.
func (r *Ring) Seal(ctx context.Context, dst, plaintext, aad []byte) ([]byte, error) {
	v := r.view.Load()
	if p := v.primary; p != nil && v.legacy == nil && p.budget.take() {
		return p.key.Seal(dst, plaintext, aad), nil
	}
	return r.sealSlow(ctx, dst, plaintext, aad)
}

// sealSlow is Seal where there is something to do first. Each round ends the
// reason for which the last one could not seal, so that a few are enough unless
// other instances roll the ring all the time.
func (r *Ring) sealSlow(ctx context.Context, dst, plaintext, aad []byte) ([]byte, error) {
	if r.opts.ReadOnly {
		return nil, errReadOnly
	}
	for range 4 {
		v := r.view.Load()
		switch {
		case v.sealErr != nil:
			return nil, v.sealErr // the ring's own loops end this, not its callers
		case v.primary == nil: // another instance rolled, and the new one is being unlocked
			if err := r.Reload(ctx); err != nil {
				return nil, err
			}
		case v.legacy != nil:
			return v.legacy.Seal(dst, plaintext), nil
		case v.primary.budget.take():
			return v.primary.key.Seal(dst, plaintext, aad), nil
		default:
			if err := r.refill(ctx, v.primary); err != nil {
				return nil, err
			}
		}
	}
	return nil, fmt.Errorf("sealing: the ring keeps changing: %w", core.ErrUnavailable)
}

// Open appends to dst the plaintext of record and returns the longer slice, and
// whether the record is stale. A data key that is not in memory is unlocked first.
//
// It returns core.ErrInvalidCiphertext if the record does not open;
// core.ErrKeyMismatch if no configured KEK unwraps its data key;
// core.ErrUnavailable if its data key could not be had now, or could not be looked
// for because the database did not answer; and core.ErrKeyMissing or
// core.ErrKeyDenied. It returns ErrNoLegacyKey for a legacy record if it is only
// such records that no configured key opens.
func (r *Ring) Open(ctx context.Context, dst, record, aad []byte) (out []byte, stale bool, err error) {
	v := r.view.Load()
	if v.openErr != nil {
		return nil, false, v.openErr
	}
	out, stale, err = v.snapshot.Open(dst, record, aad)
	if err == nil {
		return out, stale, nil
	}
	if errors.Is(err, envelope.ErrUnknownKey) {
		return r.openSlow(ctx, dst, record, aad)
	}
	if _, ok := envelope.ParseHeader(record); !ok && v.legacyMissing {
		err = fmt.Errorf("opening record: %w", r.noLegacyKey())
	}
	return nil, false, err
}

// noLegacyKey is what a legacy record opens with while there is no key for any.
// Before the provider has named its KEK it may be that there is no key at all.
func (r *Ring) noLegacyKey() error {
	if r.current.kekID() == "" {
		return core.ErrKeyMissing
	}
	return ErrNoLegacyKey
}

// openSlow opens a record whose data key is not in memory.
func (r *Ring) openSlow(ctx context.Context, dst, record, aad []byte) (out []byte, stale bool, err error) {
	id, _ := envelope.ParseHeader(record)
	if !r.enabled(id) {
		if err := r.reload(ctx, r.opts.ReloadInterval); err != nil {
			return nil, false, fmt.Errorf("looking for data key %s: %w: %w", id, core.ErrUnavailable, err)
		}
		if !r.enabled(id) {
			return nil, false, fmt.Errorf("opening record: %w", core.ErrInvalidCiphertext)
		}
	}
	if err := r.unlock(ctx, id); err != nil {
		return nil, false, fmt.Errorf("unlocking data key %s: %w", id, err)
	}
	v := r.view.Load()
	if v.openErr != nil {
		return nil, false, v.openErr
	}
	out, stale, err = v.snapshot.Open(dst, record, aad)
	if errors.Is(err, envelope.ErrUnknownKey) { // evicted or destroyed meanwhile
		err = fmt.Errorf("opening record: %w", core.ErrUnavailable)
	}
	return out, stale, err
}

// enabled reports whether the store has an enabled data key named id.
func (r *Ring) enabled(id envelope.KeyID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.find(id)
	return ok
}

// find returns the enabled data key named id; r.mu is held.
func (r *Ring) find(id envelope.KeyID) (DataKeyState, bool) {
	for _, k := range r.state.DataKeys {
		if k.ID == id && k.State == Enabled {
			return k, true
		}
	}
	return DataKeyState{}, false
}

// publish makes a view of the fields that r.mu guards, which is held.
func (r *Ring) publish() {
	v := &view{openErr: r.blocked}
	if v.openErr == nil && errors.Is(r.problem, core.ErrKeyMissing) {
		v.openErr = r.problem
	}
	var primary *envelope.Key
	var keys []*envelope.Key
	for id, k := range r.unlocked {
		keys = append(keys, k.key)
		if p := r.state.Primary(); p != nil && p.ID == id {
			primary = k.key
			v.primary = k
		}
	}
	var legacy envelope.LegacyKeys
	if !r.opts.RefuseLegacy && !r.state.LegacyClosed {
		legacy = r.opts.Legacy.LegacyKeys()
		v.legacyMissing = len(legacy) == 0
	}
	v.sealErr = cmp.Or(r.blocked, r.problem)
	if r.opts.WriteLegacy {
		if v.legacy = r.opts.Legacy.LegacyKey(); v.legacy == nil && v.sealErr == nil {
			v.sealErr = fmt.Errorf("sealing legacy records: %w", core.ErrKeyMissing)
		}
	}
	if v.primary != nil && (v.sealErr != nil || r.opts.ReadOnly || !v.primary.viaCurrent || v.primary.recovered || r.state.Primary().Version < r.maxVersion) {
		v.primary = nil
	}
	v.snapshot = envelope.NewSnapshot(primary, keys, legacy)
	r.view.Store(v)
}

func (r *Ring) keyEvent(event string, id envelope.KeyID, version int64, more ...slog.Attr) {
	attrs := append([]slog.Attr{
		slog.String("event", event), slog.String("key_id", id.String()), slog.Int64("key_version", version),
	}, more...)
	r.opts.Logger.LogAttrs(r.ctx, slog.LevelInfo, "audit", attrs...)
}
