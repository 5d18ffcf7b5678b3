package keyring

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/lockwood-kms/lockwood/core"
)

// statusRetry bounds the wait for the next status after one that failed.
const statusRetry = 5 * time.Second

// followStore takes up what other instances do until the ring is closed.
func (r *Ring) followStore() {
	for sleep(r.ctx, r.opts.PollInterval) {
		_ = r.reload(r.ctx, 0) // is kept as the ring's load error, and shows in Status
	}
}

// followStatus asks the current provider for its status until the ring is closed.
func (r *Ring) followStatus() {
	for sleep(r.ctx, r.nextStatus()) {
		r.checkStatus(r.ctx)
	}
}

// followRecovery is followStatus for the recovery KEKs, whose answers decide
// nothing but where a wrap is missing.
func (r *Ring) followRecovery() {
	for ok := true; ok; ok = sleep(r.ctx, r.opts.StatusInterval) {
		for _, err := range r.refreshRecovery(r.ctx) {
			if r.ctx.Err() == nil {
				r.opts.Logger.Warn("a recovery KEK does not answer; new data keys wait for it", "error", err)
			}
		}
	}
}

// RefreshRecovery asks the recovery KEKs for their KEK IDs. A running ring does so by
// itself. The errors of those that do not answer are joined.
func (r *Ring) RefreshRecovery(ctx context.Context) error {
	return errors.Join(r.refreshRecovery(ctx)...)
}

// refreshRecovery learns the KEK IDs of the recovery KEKs. One that does not
// answer keeps the ID that it last named.
func (r *Ring) refreshRecovery(ctx context.Context) (errs []error) {
	for _, p := range r.recovery {
		limited, cancel := context.WithTimeout(ctx, r.opts.CallTimeout)
		if _, err := p.refresh(limited); err != nil {
			errs = append(errs, err)
		}
		cancel()
	}
	return errs
}

// nextStatus returns the time to the next status: jittered, sooner after a failure,
// and never later than the end of the outage budget.
func (r *Ring) nextStatus() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	interval := r.opts.StatusInterval
	d := interval - interval/10 + rand.N(interval/5+1)
	if r.lastHealthy.IsZero() || r.blocked != nil || time.Since(r.lastHealthy) > interval {
		d = min(d, statusRetry-statusRetry/10+rand.N(statusRetry/5))
	}
	if left := r.budgetLeft(); r.blocked == nil && left > 0 {
		d = min(d, left)
	}
	return max(d, time.Millisecond)
}

// checkStatus asks the current provider for its status and draws the
// consequences. Data keys live on only by a healthy one.
func (r *Ring) checkStatus(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, r.opts.CallTimeout)
	defer cancel()
	s, err := r.current.status(ctx)
	if r.ctx.Err() != nil {
		return
	}
	if err == nil {
		r.healthy(ctx, s)
		return
	}
	_ = r.heed(err)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.blocked == nil && !r.lastHealthy.IsZero() && r.budgetLeft() == 0 {
		r.evict(fmt.Errorf("the outage budget of %s is spent: %w", r.opts.OutageBudget, err))
	}
}

// healthy notes a healthy status, and readmits data keys if they were evicted.
func (r *Ring) healthy(ctx context.Context, s core.Status) {
	r.mu.Lock()
	r.lastHealthy = time.Now()
	r.warnings = s.Warnings
	readmit := r.blocked != nil
	if readmit {
		r.blocked = nil
		r.problem = fmt.Errorf("the data keys are being unlocked: %w", core.ErrUnavailable)
	}
	if readmit || r.problem != nil {
		clear(r.attempts)
		r.publish()
	}
	r.mu.Unlock()
	if readmit {
		r.opts.Logger.Info("the key provider is healthy again; unlocking data keys", "kek_id", string(s.KEKID))
		_ = r.reload(ctx, 0)
	}
}

// heed evicts the data keys if err is the current provider's denial, and returns
// err. Every error of the current provider passes through it.
func (r *Ring) heed(err error) error {
	if errors.Is(err, core.ErrKeyDenied) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.evict(err)
	}
	return err
}

// evict forgets every data key and keeps the ring from unlocking any, whatever
// other wrap there is, until the current provider is healthy. r.mu is held.
func (r *Ring) evict(err error) {
	if r.blocked != nil && r.blocked.Error() == err.Error() {
		return
	}
	r.blocked = err
	r.opts.Logger.Error("data keys left memory", "event", "data_keys_evicted", "count", len(r.unlocked), "state", stateWord(err), "error", err)
	clear(r.unlocked)
	r.publish()
}

// budgetLeft returns what is left of the outage budget; r.mu is held.
func (r *Ring) budgetLeft() time.Duration {
	if r.lastHealthy.IsZero() {
		return 0
	}
	return max(0, r.opts.OutageBudget-time.Since(r.lastHealthy))
}

func (r *Ring) blockedErr() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.blocked
}

// sleep waits for d and reports whether it did so to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
