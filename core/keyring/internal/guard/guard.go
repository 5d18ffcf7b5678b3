// Package guard watches over the current provider: data keys live in memory only
// while it is healthy, or for the length of the outage budget.
package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/cache"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/kek"
)

// statusRetry bounds the wait for the next status after one that failed.
const statusRetry = 5 * time.Second

// Options are those of keyring.Options.
type Options struct {
	OutageBudget   time.Duration
	StatusInterval time.Duration
	CallTimeout    time.Duration
	Logger         *slog.Logger
}

// Guard holds the current KEK, and sees every answer of its provider. It is safe for
// concurrent use.
type Guard struct {
	opts  Options
	cache *cache.Cache
	kek   *kek.KEK

	mu          sync.Mutex
	lastHealthy time.Time
	warnings    []string
}

// New returns the guard of a provider, which evicts from c.
func New(p core.KeyProvider, c *cache.Cache, opts Options) *Guard {
	g := &Guard{opts: opts, cache: c}
	g.kek = kek.New(p, g.observe)
	return g
}

// KEK returns the current KEK.
func (g *Guard) KEK() *kek.KEK { return g.kek }

// observe draws the consequences of an answer: a denial evicts the data keys, and
// the first data key that the provider unwraps shows that it is healthy.
func (g *Guard) observe(op kek.Operation, err error) {
	switch {
	case errors.Is(err, core.ErrKeyDenied):
		g.evict(err)
	case err == nil && op == kek.Unwrap:
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.lastHealthy.IsZero() {
			g.lastHealthy = time.Now()
		}
	}
}

// Check asks the provider for its status and draws the consequences. It reports
// whether it is healthy, and whether that ended an eviction.
func (g *Guard) Check(ctx context.Context) (healthy, readmitted bool) {
	ctx, cancel := context.WithTimeout(ctx, g.opts.CallTimeout)
	defer cancel()
	s, err := g.kek.Status(ctx)
	if err != nil {
		g.unhealthy(err)
		return false, false
	}
	g.mu.Lock()
	g.lastHealthy = time.Now()
	g.warnings = s.Warnings
	g.mu.Unlock()
	if readmitted = g.cache.Readmit(); readmitted {
		g.opts.Logger.Info("the key provider is healthy again; unlocking data keys", "kek_id", string(s.KEKID))
	}
	return true, readmitted
}

// unhealthy evicts the data keys when the outage budget is spent.
func (g *Guard) unhealthy(err error) {
	if _, blocked := g.cache.Epoch(); blocked != nil {
		return
	}
	g.mu.Lock()
	spent := !g.lastHealthy.IsZero() && g.budgetLeft() == 0
	g.mu.Unlock()
	if spent {
		g.evict(fmt.Errorf("the outage budget of %s is spent: %w", g.opts.OutageBudget, err))
	}
}

// evict takes every data key out of memory, and keeps the ring from unlocking any,
// whatever other wrap there is, until the provider is healthy.
func (g *Guard) evict(err error) {
	if count, changed := g.cache.Evict(err); changed {
		g.opts.Logger.Error("data keys left memory", "event", "data_keys_evicted", "count", count, "state", cache.StateWord(err), "error", err)
	}
}

// NextCheck returns the time to the next Check: jittered, sooner after a failure,
// and never later than the end of the outage budget.
func (g *Guard) NextCheck() time.Duration {
	_, blocked := g.cache.Epoch()
	g.mu.Lock()
	defer g.mu.Unlock()
	interval := g.opts.StatusInterval
	d := interval - interval/10 + rand.N(interval/5+1)
	if g.lastHealthy.IsZero() || blocked != nil || time.Since(g.lastHealthy) > interval {
		d = min(d, statusRetry-statusRetry/10+rand.N(statusRetry/5))
	}
	if left := g.budgetLeft(); blocked == nil && left > 0 {
		d = min(d, left)
	}
	return max(d, time.Millisecond)
}

// Health returns what is left of the outage budget, and the provider's warnings.
func (g *Guard) Health() (budgetLeft time.Duration, warnings []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.budgetLeft(), g.warnings
}

// budgetLeft returns what is left of the outage budget; g.mu is held.
func (g *Guard) budgetLeft() time.Duration {
	if g.lastHealthy.IsZero() {
		return 0
	}
	return max(0, g.opts.OutageBudget-time.Since(g.lastHealthy))
}
