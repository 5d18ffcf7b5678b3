package fleet

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Watch looks at the fleet from one instance, so that whoever asks any of them
// learns that they differ. It is safe for concurrent use.
type Watch struct {
	store Store
	log   *slog.Logger

	mu    sync.Mutex
	live  int
	drift []string
}

// NewWatch returns a watch over the instances in store.
func NewWatch(store Store, log *slog.Logger) *Watch { return &Watch{store: store, log: log} }

// Run looks every BeatInterval until ctx ends, and logs when what it sees changes.
// While the database does not answer, what was seen last stands.
func (w *Watch) Run(ctx context.Context) {
	ticker := time.NewTicker(BeatInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			w.look(ctx)
		}
	}
}

func (w *Watch) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, BeatInterval/2)
	defer cancel()
	instances, err := w.store.Instances(ctx)
	if err != nil {
		return
	}
	drift, live := Drift(instances), 0
	for _, i := range instances {
		if i.Live {
			live++
		}
	}
	w.mu.Lock()
	changed := !slices.Equal(drift, w.drift)
	w.live, w.drift = live, drift
	w.mu.Unlock()
	switch {
	case changed && len(drift) > 0:
		w.log.Warn("the instances on this store differ; configure them alike", "drift", drift)
	case changed:
		w.log.Info("the instances on this store are alike again")
	}
}

// Drift returns what Drift said of the fleet last.
func (w *Watch) Drift() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.drift
}

// Live returns how many instances were live last.
func (w *Watch) Live() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.live
}
