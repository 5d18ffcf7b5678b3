package fleet

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Heart keeps an instance's row alive. Its beats are the instance's own proof that the
// database takes writes. It is safe for concurrent use.
type Heart struct {
	store    Store
	describe func() Instance
	log      *slog.Logger

	mu    sync.Mutex
	err   error     // of the last beat
	since time.Time // of the first that failed without one in between that did not
}

// NewHeart returns a heart that beats into store what describe says of the
// instance at the time.
func NewHeart(store Store, describe func() Instance, log *slog.Logger) *Heart {
	return &Heart{store: store, describe: describe, log: log}
}

// Run beats at once and every BeatInterval until ctx ends, and then removes the
// row. A beat that fails is logged once for an outage and never ends the instance.
func (h *Heart) Run(ctx context.Context) {
	ticker := time.NewTicker(BeatInterval)
	defer ticker.Stop()
	for failing := false; ; {
		failing = h.beat(ctx, failing)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			h.leave(context.WithoutCancel(ctx))
			return
		}
	}
}

func (h *Heart) beat(ctx context.Context, failing bool) bool {
	limited, cancel := context.WithTimeout(ctx, BeatInterval/2)
	defer cancel()
	err := h.store.Beat(limited, h.describe())
	h.note(err)
	if err != nil && !failing && ctx.Err() == nil {
		h.log.Warn("this instance cannot be seen by the others", "error", err)
	}
	return err != nil
}

func (h *Heart) note(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil && h.err == nil {
		h.since = time.Now()
	}
	h.err = err
}

// Failing returns why the last beat failed, nil if it did not, and for how long none
// has succeeded.
func (h *Heart) Failing() (time.Duration, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		return 0, nil
	}
	return time.Since(h.since), h.err
}

func (h *Heart) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := h.store.Leave(ctx, string(h.describe().ID)); err != nil {
		h.log.Warn("the row of this instance remains until it counts as dead", "error", err)
	}
}
