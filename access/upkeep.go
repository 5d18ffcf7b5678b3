package access

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/pause"
)

// The times of the upkeep. Each is for all instances together.
const (
	countEvery  = time.Minute
	sweepEvery  = time.Hour
	idleEvery   = time.Hour
	firstWithin = 10 * time.Second // of the start
	// restAfter bounds what the upkeep costs the database: a pass that took so long is
	// followed by a rest of this many times that.
	restAfter = 100
	// idlePace is the least time between two grants for idle credentials.
	idlePace = time.Second
	// idleTimeout is how long one of these is waited for.
	idleTimeout = 2 * time.Minute
)

// upkeepPage is how many rows a scan of the upkeep reads at a time.
const upkeepPage = 500

// Refresher fetches access tokens; *Service is one.
type Refresher interface {
	// Refresh has an access token fetched, also if the stored one is fresh.
	Refresh(ctx context.Context, key Key) error
}

// UpkeepOptions are the optional settings of an Upkeep.
type UpkeepOptions struct {
	// IdleAfter is how long a credential may go without a grant before one is made to keep
	// its refresh token alive. Zero is for ever.
	IdleAfter time.Duration
	// Live returns on how many instances the upkeep runs, which share it. Nil is one.
	Live func() int
	// Logger is told what a pass did, and why one failed. Nil is slog.Default.
	Logger *slog.Logger
	// Registerer takes the metrics. Nil keeps them to the upkeep.
	Registerer prometheus.Registerer
}

// Upkeep looks after the access tokens of a store for as long as an instance runs: it
// counts the credentials in each state for a metric, deletes the rows of credentials that
// are gone, and keeps idle refresh tokens alive. What it costs is bounded however many
// credentials there are, and instances.
type Upkeep struct {
	store     UpkeepStore
	refresher Refresher
	opts      UpkeepOptions
	states    *prometheus.GaugeVec
	idle      *prometheus.CounterVec
}

// NewUpkeep returns an upkeep. It fails if the metrics cannot be registered.
func NewUpkeep(store UpkeepStore, refresher Refresher, opts UpkeepOptions) (*Upkeep, error) {
	u := &Upkeep{
		store: store, refresher: refresher, opts: opts,
		states: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "lockwood_credentials", Help: "Credentials in the store by state, counted every now and then.",
		}, []string{"state"}),
		idle: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lockwood_idle_refreshes_total", Help: "Grants that were made to keep idle refresh tokens alive, by outcome.",
		}, []string{"outcome"}),
	}
	if u.opts.Logger == nil {
		u.opts.Logger = slog.Default()
	}
	if u.opts.Live == nil {
		u.opts.Live = func() int { return 1 }
	}
	if r := opts.Registerer; r != nil {
		if err := errors.Join(r.Register(u.states), r.Register(u.idle)); err != nil {
			return nil, fmt.Errorf("creating the upkeep of access tokens: %w", err)
		}
	}
	return u, nil
}

// Run does the upkeep until ctx ends.
func (u *Upkeep) Run(ctx context.Context) {
	var passes sync.WaitGroup
	passes.Go(func() { u.repeat(ctx, "counting credentials", countEvery, u.Count) })
	passes.Go(func() { u.repeat(ctx, "deleting access tokens without a credential", sweepEvery, u.Sweep) })
	if u.opts.IdleAfter > 0 {
		every := min(idleEvery, u.opts.IdleAfter/4)
		passes.Go(func() { u.repeat(ctx, "refreshing idle credentials", every, u.RefreshIdle) })
	}
	passes.Wait()
}

// repeat does a pass every so often, which all instances together do not exceed.
func (u *Upkeep) repeat(ctx context.Context, what string, every time.Duration, pass func(context.Context) error) {
	for wait := rand.N(firstWithin); pause.For(ctx, wait); { //nolint:gosec // jitter spreads passes; nobody gains by guessing it
		began := time.Now()
		if err := pass(ctx); err != nil && ctx.Err() == nil {
			u.opts.Logger.LogAttrs(ctx, slog.LevelWarn, "the upkeep of access tokens failed, and is tried again later", slog.String("while", what), errorAttr(err))
		}
		wait = max(every*time.Duration(max(1, u.opts.Live())), restAfter*time.Since(began))
		wait += rand.N(wait/10 + 1) //nolint:gosec // as above
	}
}

// Count counts the credentials in each state, for the metric.
func (u *Upkeep) Count(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	counts, err := u.store.CountStates(ctx)
	if err != nil {
		return err
	}
	for _, state := range credential.States() {
		u.states.WithLabelValues(string(state)).Set(float64(counts[state]))
	}
	return nil
}

// Sweep deletes the rows of access tokens whose credential is gone, unless somebody may
// hold one. A disconnect leaves the row, for a grant that is under way.
func (u *Upkeep) Sweep(ctx context.Context) error {
	deleted := 0
	for after, more := (Key{UserID: -1 << 63}), true; more; {
		page, err := u.orphans(ctx, after)
		if err != nil {
			return err
		}
		for _, orphan := range page {
			gone, err := u.delete(ctx, orphan)
			if err != nil {
				return err
			}
			if gone {
				deleted++
			}
		}
		if more = len(page) == upkeepPage; more {
			after = page[len(page)-1].Key
		}
	}
	if deleted > 0 {
		u.opts.Logger.LogAttrs(ctx, slog.LevelInfo, "access tokens of credentials that are gone were deleted", slog.Int("rows", deleted))
	}
	return nil
}

func (u *Upkeep) orphans(ctx context.Context, after Key) ([]Orphan, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	return u.store.ScanOrphans(ctx, after, upkeepPage)
}

func (u *Upkeep) delete(ctx context.Context, orphan Orphan) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	return u.store.DeleteOrphan(ctx, orphan)
}

// RefreshIdle makes a grant for every credential that has had none for
// UpkeepOptions.IdleAfter, one after another. A credential whose last grant failed is left
// alone: a grant more would not help it.
func (u *Upkeep) RefreshIdle(ctx context.Context) error {
	for after, more := int64(0), true; more; {
		page, err := u.ages(ctx, after, upkeepPage)
		if err != nil {
			return err
		}
		if more = len(page) == upkeepPage; more {
			after = page[len(page)-1].CredentialID
		}
		idle := page[:0]
		for _, age := range page {
			if u.isIdle(age) {
				idle = append(idle, age)
			}
		}
		// Instances that came to the page together part here.
		rand.Shuffle(len(idle), func(i, j int) { idle[i], idle[j] = idle[j], idle[i] }) //nolint:gosec // nobody gains by guessing it
		for _, age := range idle {
			if err := u.refreshIdle(ctx, age); err != nil {
				return err
			}
		}
	}
	return nil
}

func (u *Upkeep) isIdle(age Age) bool {
	return age.State == credential.Connected && age.Idle >= u.opts.IdleAfter
}

func (u *Upkeep) ages(ctx context.Context, after int64, limit int) ([]Age, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	return u.store.ScanAges(ctx, after, limit)
}

// refreshIdle makes a grant, unless another instance was faster. Only an error that would
// be that of every other credential too ends the pass.
func (u *Upkeep) refreshIdle(ctx context.Context, age Age) error {
	now, err := u.ages(ctx, age.CredentialID-1, 1)
	if err != nil {
		return err
	}
	if len(now) == 0 || now[0].CredentialID != age.CredentialID || !u.isIdle(now[0]) {
		return nil
	}
	grant, cancel := context.WithTimeout(ctx, idleTimeout)
	err = u.refresher.Refresh(grant, age.Key)
	cancel()
	outcome := "granted"
	if err != nil {
		outcome = "failed" // the line of the grant says why
	}
	u.idle.WithLabelValues(outcome).Inc()
	switch {
	case errors.Is(err, core.ErrStoreUnavailable), errors.Is(err, core.ErrUnavailable), errors.Is(err, core.ErrKeyDenied),
		errors.Is(err, core.ErrKeyMissing), errors.Is(err, core.ErrKeyMismatch), ctx.Err() != nil:
		return err
	}
	pause.For(ctx, idlePace+rand.N(idlePace)) //nolint:gosec // jitter spreads grants
	return nil
}
