package access

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// The limits of grants that are under way on one instance at the same time. They bound
// concurrency alone: how often a token endpoint is asked belongs to the credential, or
// one bogus deposit would hold up everybody's.
const (
	grantsEach  = 8    // of a user
	grantsHost  = 16   // at one token endpoint's host
	grantsAll   = 256  //
	grantsQueue = 1000 // that wait
	queueHost   = 250  // of these, for one host: a slow one does not keep the others out
	queueWait   = 10 * time.Second
)

// limits admits grants. It is safe for concurrent use.
type limits struct {
	all *semaphore.Weighted

	mu      sync.Mutex
	waiting int
	users   map[int64]*share
	hosts   map[string]*share
}

// share is a semaphore that is there as long as somebody uses it.
type share struct {
	*semaphore.Weighted
	used int
}

func newLimits() *limits {
	return &limits{all: semaphore.NewWeighted(grantsAll), users: make(map[int64]*share), hosts: make(map[string]*share)}
}

// take returns the share of key, which put gives back.
func take[K comparable](shares map[K]*share, key K, size int64) *share {
	s, ok := shares[key]
	if !ok {
		s = &share{Weighted: semaphore.NewWeighted(size)}
		shares[key] = s
	}
	s.used++
	return s
}

func put[K comparable](shares map[K]*share, key K, s *share) {
	if s.used--; s.used == 0 {
		delete(shares, key)
	}
}

// enter waits until a grant of the user's at the host may begin. It returns ErrBusy if
// too many wait, for the host or in all, or the wait is too long. The caller calls leave.
func (l *limits) enter(ctx context.Context, userID int64, host string) (leave func(), err error) {
	l.mu.Lock()
	user, at := take(l.users, userID, grantsEach), take(l.hosts, host, grantsHost)
	shares := []*semaphore.Weighted{user.Weighted, at.Weighted, l.all}
	held := tryAll(shares)
	waits := len(held) < len(shares)
	full := waits && (l.waiting >= grantsQueue || at.used > grantsHost+queueHost)
	if waits && !full {
		l.waiting++
	}
	l.mu.Unlock()

	switch {
	case full:
		err = ErrBusy
	case waits:
		held, err = l.wait(ctx, shares)
	}
	leave = func() {
		for _, s := range held {
			s.Release(1)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		put(l.users, userID, user)
		put(l.hosts, host, at)
	}
	if err != nil {
		leave()
		return nil, &RetryError{ErrBusy, time.Second}
	}
	return leave, nil
}

// tryAll acquires all shares, or none.
func tryAll(shares []*semaphore.Weighted) (held []*semaphore.Weighted) {
	for _, s := range shares {
		if !s.TryAcquire(1) {
			for _, h := range held {
				h.Release(1)
			}
			return nil
		}
		held = append(held, s)
	}
	return held
}

// wait acquires one share after another, for a while.
func (l *limits) wait(ctx context.Context, shares []*semaphore.Weighted) (held []*semaphore.Weighted, err error) {
	ctx, cancel := context.WithTimeout(ctx, queueWait)
	defer cancel()
	for _, s := range shares {
		if err = s.Acquire(ctx, 1); err != nil {
			break
		}
		held = append(held, s)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting--
	return held, err
}
