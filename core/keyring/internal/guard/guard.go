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

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/cache"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/kek"
)

const (
	// statusRetry bounds the wait for the next status after one that failed.
	statusRetry = 5 * time.Second
	// tellEvery is how often the log is told that an outage lasts.
	tellEvery = 5 * time.Minute
	// proveEvery is how often the wrap of the primary is unwrapped again.
	proveEvery = time.Hour
	// provenWraps is how many wraps are remembered that were seen to unwrap.
	provenWraps = 4096
)

// Options are those of keyring.Options.
type Options struct {
	OutageBudget   time.Duration
	StatusInterval time.Duration
	CallTimeout    time.Duration
	Observe        func(operation, outcome string, took time.Duration)
	Logger         *slog.Logger
}

// Guard holds the current KEK, and sees every answer of its provider. It is safe for
// concurrent use.
type Guard struct {
	opts   Options
	cache  *cache.Cache
	kek    *kek.KEK
	proven *lru.Cache[kek.Digest, struct{}]
	// suspected has a value when the provider refused a wrap that it was not seen to
	// unwrap: the reason is the wrap, or that nothing unwraps any more.
	suspected chan struct{}

	mu          sync.Mutex
	health      Health
	lastHealthy time.Time
	told        time.Time // when the log was last told of an outage
	canary      *Canary
	unwrapped   *Canary   // the last one that was seen to unwrap
	provenAt    time.Time // when the canary was last seen to unwrap
	mismatch    error     // that it does not
}

// Canary is the stored wrap of the primary. What is sealed now can be opened later
// only while it unwraps.
type Canary struct {
	ID      envelope.KeyID
	Wrap    core.WrappedKey
	Binding kek.Binding
}

// Health is how the provider is.
type Health struct {
	// BudgetLeft is how long data keys stay in memory if it does not answer from now on.
	BudgetLeft time.Duration
	// OutageSince is when it was first seen not to answer, of an outage that lasts.
	OutageSince time.Time
	// Err is its last answer.
	Err error
	// Warnings are those of its last healthy status.
	Warnings []string
}

// New returns the guard of a provider, which evicts from c.
func New(p core.KeyProvider, c *cache.Cache, opts Options) *Guard {
	proven, _ := lru.New[kek.Digest, struct{}](provenWraps) // fails for a size of 0
	g := &Guard{opts: opts, cache: c, proven: proven, suspected: make(chan struct{}, 1)}
	g.kek = kek.New(p, g.observe)
	return g
}

// KEK returns the current KEK.
func (g *Guard) KEK() *kek.KEK { return g.kek }

// Suspected has a value when Prove should be called soon.
func (g *Guard) Suspected() <-chan struct{} { return g.suspected }

// observe draws the consequences of an answer. The refusal of a wrap that was seen
// to unwrap evicts the data keys. Any other refusal may be that of a wrap that
// somebody planted, or of a permission that opening does not need.
func (g *Guard) observe(a kek.Answer) {
	if g.opts.Observe != nil {
		g.opts.Observe(string(a.Operation), a.Outcome(), a.Took)
	}
	if a.Operation != kek.Unwrap {
		return
	}
	switch digest := kek.DigestOf(a.Wrapped); {
	case a.Err == nil:
		g.proven.Add(digest, struct{}{})
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.lastHealthy.IsZero() {
			g.lastHealthy = time.Now()
		}
	case errors.Is(a.Err, core.ErrKeyDenied):
		if g.proven.Contains(digest) {
			g.evict(a.Err)
			return
		}
		if g.watches(digest) {
			return // that one was just tried
		}
		select {
		case g.suspected <- struct{}{}:
		default:
		}
	}
}

// watches reports whether digest is that of the canary.
func (g *Guard) watches(digest kek.Digest) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.canary != nil && kek.DigestOf(g.canary.Wrap) == digest
}

// Check asks the provider for its status and draws the consequences. It reports
// whether it is healthy, and whether that ended an eviction.
func (g *Guard) Check(ctx context.Context) (healthy, readmitted bool) {
	ctx, cancel := context.WithTimeout(ctx, g.opts.CallTimeout)
	defer cancel()
	epoch, _ := g.cache.Epoch()
	s, err := g.kek.Status(ctx)
	if err != nil {
		g.unhealthy(err)
		return false, false
	}
	_, blocked := g.cache.Epoch()
	if prove := g.healthy(&s); (prove || blocked != nil) && g.Prove(ctx) {
		return false, false
	}
	if readmitted = g.cache.Readmit(epoch); readmitted {
		g.opts.Logger.Info("the key provider is healthy again; unlocking data keys", "kek_id", string(s.KEKID))
	}
	return true, readmitted
}

// healthy notes a healthy status, and reports whether it is time to prove the canary.
func (g *Guard) healthy(s *core.Status) (prove bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if since := g.health.OutageSince; !since.IsZero() {
		g.opts.Logger.Info("the key provider answers again", "kek_id", string(s.KEKID), "after", now.Sub(since).Round(time.Second).String())
		prove = true
	}
	g.lastHealthy = now
	g.health = Health{Warnings: s.Warnings}
	return prove || g.mismatch != nil || now.Sub(g.provenAt) >= proveEvery
}

// unhealthy tells the log of an outage, and evicts the data keys when its budget is
// spent or the provider denies.
func (g *Guard) unhealthy(err error) {
	if errors.Is(err, core.ErrKeyDenied) {
		g.evict(err)
	}
	_, blocked := g.cache.Epoch()
	g.mu.Lock()
	now := time.Now()
	left := g.budgetLeft()
	switch {
	case g.health.OutageSince.IsZero():
		g.health.OutageSince, g.told = now, now
		g.opts.Logger.Warn("the key provider does not answer as it should; data keys that are in memory stay there for the outage budget", "budget_left", left.Round(time.Second).String(), "error", err)
	case now.Sub(g.told) >= tellEvery:
		g.told = now
		g.opts.Logger.Warn("the key provider still does not answer as it should", "since", g.health.OutageSince.UTC().Format(time.RFC3339), "budget_left", left.Round(time.Second).String(), "error", err)
	}
	g.health.Err = err
	spent := blocked == nil && !g.lastHealthy.IsZero() && left == 0
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

// Watch says which wrap has to unwrap for the ring to go on sealing. If another one did
// not unwrap, nothing is sealed until this one was seen to.
func (g *Guard) Watch(c Canary) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.canary == nil {
		g.provenAt = time.Now()
	}
	g.canary = &c
	if g.proven.Contains(kek.DigestOf(c.Wrap)) {
		g.unwrapped = &c
	}
}

// Unwatch says that the primary is the data key named id, and has no wrap to watch. That
// the wrap of another one did not unwrap does not matter any more.
func (g *Guard) Unwatch(id envelope.KeyID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.canary != nil && g.canary.ID != id {
		g.canary, g.mismatch = nil, nil
	}
}

// Prove unwraps the canary. That it does not unwrap any more keeps the ring from
// sealing, since nothing that is sealed could be opened after a restart: as where the
// key was deleted in the KMS and made anew under its old name. It reports whether the
// provider denied what it was seen to unwrap, which evicts the data keys whatever the
// provider's status is.
func (g *Guard) Prove(ctx context.Context) (denied bool) {
	g.mu.Lock()
	before := g.unwrapped
	g.mu.Unlock()
	c, err := g.prove(ctx)
	if !errors.Is(err, core.ErrKeyDenied) {
		return false
	}
	if !g.proven.Contains(kek.DigestOf(c.Wrap)) && before != nil && before.Wrap.KEKID.Key() == c.Wrap.KEKID.Key() {
		// Somebody else wrote this wrap. Whether the provider denies all of them is told by
		// one that was seen to unwrap.
		c, err = before, g.unwrap(ctx, before)
	}
	return errors.Is(err, core.ErrKeyDenied) && g.proven.Contains(kek.DigestOf(c.Wrap))
}

// errNoCanary means that there is no wrap to prove anything with.
var errNoCanary = errors.New("no wrap is watched")

// prove unwraps the canary, which it returns, and notes what that shows.
func (g *Guard) prove(ctx context.Context) (*Canary, error) {
	g.mu.Lock()
	c := g.canary
	g.mu.Unlock()
	if c == nil {
		return nil, errNoCanary
	}
	err := g.unwrap(ctx, c)
	g.judge(c, err)
	return c, err
}

func (g *Guard) unwrap(ctx context.Context, c *Canary) error {
	plaintext, _, err := g.kek.Unwrap(ctx, c.ID, c.Wrap, c.Binding)
	clear(plaintext)
	return err
}

// judge draws from whether c unwraps whether anything may be sealed.
func (g *Guard) judge(c *Canary, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before := g.mismatch
	switch {
	case err == nil:
		g.unwrapped, g.provenAt, g.mismatch = c, time.Now(), nil
	case errors.Is(err, core.ErrInvalidCiphertext), errors.Is(err, core.ErrKeyMismatch):
		g.mismatch = fmt.Errorf("%w: the wrap of the primary data key %s under %s does not unwrap any more, so nothing is sealed; the key was made anew in the KMS, or the wrap was altered in the database: restore what was there before, or see lockwood recover (%v)",
			core.ErrKeyMismatch, c.ID, c.Wrap.KEKID, err) //nolint:errorlint // the provider's sentinel would say something of a record
	}
	if before == nil && g.mismatch != nil {
		g.cache.SetProblem(g.mismatch)
	}
}

// Vouches reports whether the provider unwraps the canary: then its refusal of another
// wrap before says something of that wrap alone.
func (g *Guard) Vouches(ctx context.Context) bool {
	_, err := g.prove(ctx)
	return err == nil
}

// Mismatch returns why nothing may be sealed under the current KEK, or nil.
func (g *Guard) Mismatch() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mismatch
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

// Health returns how the provider is.
func (g *Guard) Health() Health {
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.health
	h.BudgetLeft = g.budgetLeft()
	return h
}

// budgetLeft returns what is left of the outage budget; g.mu is held.
func (g *Guard) budgetLeft() time.Duration {
	if g.lastHealthy.IsZero() {
		return 0
	}
	return max(0, g.opts.OutageBudget-time.Since(g.lastHealthy))
}
