// Package reconcile does what is missing between what the store holds and what the
// configuration wants: a primary that may seal, a wrap under every KEK, none that is
// left over.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/cache"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/flight"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/guard"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/kek"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/keystate"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/loader"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/witness"
	"github.com/lockwood-kms/lockwood/internal/pause"
)

// Options are those of keyring.Options.
type Options struct {
	Previous []core.KeyProvider
	Recovery []kek.RecoveryKEK
	Live     func(ctx context.Context) ([]LiveInstance, error)
	Legacy   cache.Legacy

	NoAutoRewrap bool
	WriteLegacy  bool
	ReadOnly     bool

	MaxAge         time.Duration
	ReloadInterval time.Duration
	CallTimeout    time.Duration
	MaxSeals       int64
	SealBlock      int64
	Logger         *slog.Logger
}

// Reconciler is safe for concurrent use.
type Reconciler struct {
	opts     Options
	store    keystate.Store
	witness  *witness.Witness
	cache    *cache.Cache
	loader   *loader.Loader
	guard    *guard.Guard
	keks     *KEKs
	unlocker *unlocker
	wrapper  *wrapper
	flights  *flight.Group

	// reconciling admits one reconciliation at a time.
	reconciling flight.Mutex

	mu           sync.Mutex
	making       *flight.Failure // the last attempt to make a primary
	rewraps      map[envelope.KeyID]*flight.Failure
	legacyProven bool      // a legacy key opened what was there before the first data key
	madePrimary  time.Time // when this process last made one
	anomalies    int64     // how often the database named a primary that is retired

	// absent are key IDs that records name and that a load, which began after they
	// were asked for, did not show.
	absent *lru.Cache[envelope.KeyID, struct{}]

	// adds bounds the wraps that are added by itself: who deletes them makes work.
	adds  *rate.Limiter
	rolls *rate.Limiter // of primaries that are made on the word of the database
}

// addsAtOnce is how many data keys get wraps by themselves at once, and then one a
// second. A store has a few.
const addsAtOnce = 64

// mostAbsent bounds how many key IDs are remembered that the store does not have.
const mostAbsent = 1 << 17

// New returns a Reconciler, whose work ends with ctx. It does nothing yet.
func New(ctx context.Context, g *guard.Guard, w *witness.Witness, c *cache.Cache, store keystate.Store, opts Options) *Reconciler {
	keks := &KEKs{Current: g.KEK(), timeout: opts.CallTimeout, log: opts.Logger, warned: make(map[*kek.Recovery]bool)}
	for _, p := range opts.Previous {
		keks.Previous = append(keks.Previous, kek.New(p, nil))
	}
	for _, p := range opts.Recovery {
		keks.Recovery = append(keks.Recovery, kek.NewRecovery(p))
	}
	flights := flight.NewGroup(ctx, opts.CallTimeout)
	l := loader.New(store, w, c, keks.Current, opts.CallTimeout)
	refused, _ := lru.New[refusal, time.Time](mostRefused) // New fails for a size of 0
	absent, _ := lru.New[envelope.KeyID, struct{}](mostAbsent)
	u := &unlocker{loader: l, cache: c, guard: g, keks: keks, flights: flights, refused: refused, failed: make(map[envelope.KeyID]failedUnlock)}
	return &Reconciler{
		opts: opts, store: store, witness: w, cache: c, loader: l, guard: g, keks: keks, unlocker: u, flights: flights,
		wrapper:     &wrapper{store: store, loader: l, cache: c, keks: keks, unlocker: u, log: opts.Logger},
		reconciling: flight.NewMutex(),
		rewraps:     make(map[envelope.KeyID]*flight.Failure),
		absent:      absent,
		adds:        rate.NewLimiter(1, addsAtOnce),
		rolls:       rate.NewLimiter(rate.Every(rollEvery), rollsAtOnce),
	}
}

// KEKs returns the KEKs that are configured.
func (r *Reconciler) KEKs() *KEKs { return r.keks }

// Loader returns what the store was last seen to hold.
func (r *Reconciler) Loader() *loader.Loader { return r.loader }

// Reload returns once a load of the ring has completed that began after the call.
func (r *Reconciler) Reload(ctx context.Context) error { return r.reload(ctx, 0) }

// reload is Reload for callers that share loads: one for them begins no sooner than
// interval after the last, so that unknown key IDs, which anyone may write into a
// row, cannot storm the database.
func (r *Reconciler) reload(ctx context.Context, interval time.Duration) error {
	called := r.loader.Begun()
	for {
		err := r.flights.Do(ctx, "reload", func(ctx context.Context) error {
			_, ended := r.loader.Last()
			if !pause.For(ctx, time.Until(ended.Add(interval))) {
				return fmt.Errorf("waiting to load the ring: %w", core.ErrUnavailable)
			}
			return r.reconcile(ctx)
		})
		if done, _ := r.loader.Last(); done > called || err != nil {
			return err
		}
	}
}

// Poll is Reload on the word of the store: it loads the ring if the store's revision is
// another one, and now and then in any case. What is to be done from time to time it does
// all the same.
func (r *Reconciler) Poll(ctx context.Context) error {
	return r.flights.Do(ctx, "poll", func(ctx context.Context) error {
		return r.reconcileBy(ctx, func(ctx context.Context) error {
			if current, err := r.loader.Current(ctx); current || err != nil {
				return err
			}
			return r.loader.Load(ctx)
		})
	})
}

// look returns once it is known, on the word of the store, that a load shows what the
// store held when look was called. Callers share the loads, of which one begins no sooner
// than interval after the last.
func (r *Reconciler) look(ctx context.Context, interval time.Duration) error {
	called := r.loader.Begun()
	for {
		err := r.flights.Do(ctx, "look", func(ctx context.Context) error {
			current, err := r.loader.Current(ctx)
			if err == nil && !current {
				err = errChanged
			}
			return err
		})
		if errors.Is(err, errChanged) {
			return r.reload(ctx, interval)
		}
		if done, _ := r.loader.Last(); done > called || err != nil {
			return err
		}
	}
}

// errChanged means that the ring is to be loaded.
var errChanged = errors.New("the ring may have changed")

// Retry forgets when failed attempts to unlock are to be made again: the provider is
// healthy.
func (r *Reconciler) Retry() {
	r.unlocker.retry()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.making = nil
}

// Anomalies returns how often the database named a primary that is retired.
func (r *Reconciler) Anomalies() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.anomalies
}

// reconcile loads the ring and does what is missing for the primary to seal. What
// keeps it from sealing becomes the ring's problem; the error is only that of
// loading.
func (r *Reconciler) reconcile(ctx context.Context) error { return r.reconcileBy(ctx, r.loader.Load) }

// reconcileBy is reconcile for what load leaves loaded.
func (r *Reconciler) reconcileBy(ctx context.Context, load func(context.Context) error) error {
	unlock, err := r.reconciling.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := load(ctx); err != nil {
		return err
	}
	if err = r.ensurePrimary(ctx); err == nil {
		err = r.guard.Mismatch() // found meanwhile
	}
	r.cache.SetProblem(err) // at once: what follows waits for recovery KEKs, and the ring seals without
	if err == nil {
		r.renew(ctx)
		r.rewrapAll(ctx)
	}
	return nil
}

// Unlock brings the data key named id into memory. It returns
// core.ErrInvalidCiphertext if the store has no such key, and else what Open does.
func (r *Reconciler) Unlock(ctx context.Context, id envelope.KeyID) error {
	if err := r.expect(ctx, r.opts.ReloadInterval, id); err != nil {
		return err
	}
	if _, _, ok := r.loader.Find(id); !ok {
		return fmt.Errorf("opening record: %w", core.ErrInvalidCiphertext)
	}
	if err := r.unlocker.unlock(ctx, id); err != nil {
		return fmt.Errorf("unlocking data key %s: %w", id, err)
	}
	return nil
}

// batchesInInterval is how many loads of Expect begin in the interval of those that single
// records cause: reading and opening a batch is work too.
const batchesInInterval = 10

// Expect looks at the store if one of ids is not known, to be there or not: anyone may
// write one into a row. A key that an instance makes later is found by the next load.
func (r *Reconciler) Expect(ctx context.Context, ids ...envelope.KeyID) error {
	return r.expect(ctx, r.opts.ReloadInterval/batchesInInterval, ids...)
}

func (r *Reconciler) expect(ctx context.Context, interval time.Duration, ids ...envelope.KeyID) error {
	unknown := slices.DeleteFunc(slices.Clone(ids), func(id envelope.KeyID) bool {
		_, _, ok := r.loader.Find(id)
		return ok || r.absent.Contains(id)
	})
	if len(unknown) == 0 {
		return nil
	}
	if err := r.look(ctx, interval); err != nil {
		return fmt.Errorf("looking for data key %s: %w: %w", unknown[0], core.ErrUnavailable, err)
	}
	for _, id := range unknown {
		if _, _, ok := r.loader.Find(id); !ok {
			r.absent.Add(id, struct{}{})
		}
	}
	return nil
}

// Refill reserves another block of seals for p, or rolls the ring if p's budget is
// spent.
func (r *Reconciler) Refill(ctx context.Context, p *cache.Key) error {
	return r.flights.Do(ctx, "refill "+p.ID().String(), func(ctx context.Context) error {
		if !p.Spent() {
			return nil // the flight before this one did it
		}
		before := r.witness.Reserved(p.ID())
		if r.opts.MaxSeals-before < r.opts.SealBlock {
			return r.rollSpent(ctx)
		}
		ok, err := r.store.ReserveSeals(ctx, p.ID(), r.opts.SealBlock, r.opts.MaxSeals)
		switch {
		case errors.Is(err, keystate.ErrNotEnabled):
			return r.reconcile(ctx)
		case err != nil:
			return fmt.Errorf("reserving seals: %w", err)
		case ok:
			r.witness.Reserve(p.ID(), before+r.opts.SealBlock)
			p.Refill(r.opts.SealBlock)
			return nil
		}
		return r.rollSpent(ctx)
	})
}
