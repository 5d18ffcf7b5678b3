// Package pause waits for a time that a context can cut short. It is a package of its own
// because the ring, the rotation, the stores and whoever fetches access tokens all wait that
// way, and none of them imports another for it.
package pause

import (
	"context"
	"time"
)

// For waits for d and reports whether it did so to the end: not if ctx ended first. Of a d
// that is not positive it reports at once whether ctx has not ended.
func For(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
