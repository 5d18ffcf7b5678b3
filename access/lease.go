package access

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/internal/pause"
)

// errLeaseLost means that a token was not presented, since the lease may be another's.
var errLeaseLost = errors.New("the lease is lost")

// held is a lease that is renewed until stop. It is safe for concurrent use.
type held struct {
	Lease
	service *Service
	cancel  context.CancelFunc
	done    chan struct{}

	mu sync.Mutex
	// renewed is when the last statement that claimed or renewed the lease was sent: what
	// the database's clock says of its end is later than what this says.
	renewed time.Time
}

// hold begins to renew a lease that was claimed by a statement sent at asked.
func (s *Service) hold(l Lease, asked time.Time) *held {
	ctx, cancel := context.WithCancel(s.ctx)
	h := &held{Lease: l, service: s, cancel: cancel, done: make(chan struct{}), renewed: asked}
	go h.keep(ctx)
	return h
}

func (h *held) stop() {
	h.cancel()
	<-h.done
}

// keep renews the lease every now and then, and more often while that fails, for as long
// as it is ours. It does so before a token could not be presented any more.
func (h *held) keep(ctx context.Context) {
	defer close(h.done)
	wait := protocol.RenewEvery - time.Second
	for pause.For(ctx, wait) {
		mine, err := h.renew(ctx, statementTimeout)
		switch {
		case err != nil:
			wait = retryEvery
		case !mine:
			return
		default:
			wait = protocol.RenewEvery - time.Second
		}
	}
}

// renew reports whether the lease is still ours.
func (h *held) renew(ctx context.Context, timeout time.Duration) (mine bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	asked := time.Now()
	mine, err = h.service.store.RenewLease(ctx, h.Lease, h.service.lease)
	if err == nil && mine {
		h.mu.Lock()
		defer h.mu.Unlock()
		if asked.After(h.renewed) {
			h.renewed = asked
		}
	}
	return mine, err
}

// present returns nil if a token may be presented now: the lease was renewed a moment
// ago. It is judged by the monotonic clock and by the clock on the wall, since the former
// stands still while a virtual machine is suspended.
func (h *held) present(ctx context.Context) error {
	if h.current() {
		return nil
	}
	if mine, err := h.renew(ctx, renewTimeout); err != nil || !mine || !h.current() {
		return errLeaseLost
	}
	return nil
}

func (h *held) current() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	wall := now.Round(0).Sub(h.renewed.Round(0))
	return now.Sub(h.renewed) < protocol.RenewEvery && wall < protocol.RenewEvery && wall > -protocol.RenewEvery
}
