// Package flight runs work that several callers wait for.
package flight

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"github.com/lockwood-kms/lockwood/core"
)

// Group runs work once for all who ask for it under the same name at the same
// time. It is safe for concurrent use.
type Group struct {
	flights singleflight.Group
	ctx     context.Context
	timeout time.Duration
}

// NewGroup returns a Group whose work runs under ctx, which outlives any caller: work
// that many wait for must not end because one of them gave up. timeout bounds each
// piece of work.
func NewGroup(ctx context.Context, timeout time.Duration) *Group {
	return &Group{ctx: ctx, timeout: timeout}
}

// Do runs work, or waits for the one of the same name. It returns its error, or
// core.ErrUnavailable with the cause of ctx if that ends first; the work then goes
// on for the others.
func (g *Group) Do(ctx context.Context, name string, work func(context.Context) error) error {
	done := g.flights.DoChan(name, func() (any, error) {
		ctx, cancel := context.WithTimeout(g.ctx, g.timeout)
		defer cancel()
		return nil, work(ctx)
	})
	select {
	case result := <-done:
		return result.Err
	case <-ctx.Done():
		return fmt.Errorf("waiting for the ring: %w: %w", core.ErrUnavailable, context.Cause(ctx))
	}
}

// atOnce is how many data keys are worked on at the same time: a key service answers
// in tens of milliseconds, and a store has few data keys.
const atOnce = 8

// Each calls f for every item, for some of them at the same time, and returns when
// all are done.
func Each[T any](items []T, f func(i int, item T)) {
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, item := range items {
		group.Go(func() error { f(i, item); return nil })
	}
	_ = group.Wait()
}

// Mutex is a mutex whose waiting a context ends.
type Mutex chan struct{}

// NewMutex returns an unlocked Mutex.
func NewMutex() Mutex { return make(Mutex, 1) }

// Lock waits for m. It returns core.ErrUnavailable with the cause of ctx if that ends
// first.
func (m Mutex) Lock(ctx context.Context) (unlock func(), err error) {
	select {
	case m <- struct{}{}:
		return func() { <-m }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the ring: %w: %w", core.ErrUnavailable, context.Cause(ctx))
	}
}
