package httpapi

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// bodyCost is how many bytes of memory a byte of a body is counted for. It is
	// held as text, as parsed fields, as plaintext, as a record and in the
	// driver's buffer, and what is garbage counts until it is collected.
	bodyCost = 8

	// pageCost is what a page of a list may cost, in bytes: 100 credentials whose
	// values are as long as they may be, read and encoded.
	pageCost = 4 << 20

	// leastShare is the least that a user may hold: a body of the largest size
	// and what it is decompressed with.
	leastShare = bodyCost*(maxJSON+1) + treesCost + windowCost<<maxWindowBits

	// memoryWait is how long a request waits for memory before it is answered 503.
	memoryWait = 5 * time.Second
)

var errBusy = errors.New("requests hold all the memory that they may hold")

// memory bounds what requests hold at the same time: bytes over all callers, and
// for each user a share of them and a number of requests, so that nobody can take
// it from the others. It is safe for concurrent use.
type memory struct {
	all      *semaphore.Weighted
	share    int64
	requests int

	mu    sync.Mutex
	users map[int64]*account
}

// account is what the requests of one user hold.
type account struct {
	bytes    *semaphore.Weighted
	requests int
}

func newMemory(most int64, requests int) *memory {
	share := max(most/4, leastShare)
	return &memory{
		all:      semaphore.NewWeighted(max(most, share)),
		share:    share,
		requests: requests,
		users:    make(map[int64]*account),
	}
}

// claim is what one request holds. Only the request's goroutine uses it.
type claim struct {
	memory  *memory
	userID  int64
	account *account
	bytes   int64
}

// enter begins a request of the user's. It returns nil if the user has as many
// requests as may be served at the same time. The caller calls leave.
func (m *memory) enter(userID int64) *claim {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, ok := m.users[userID]
	if !ok {
		a = &account{bytes: semaphore.NewWeighted(m.share)}
		m.users[userID] = a
	}
	if a.requests >= m.requests {
		return nil
	}
	a.requests++
	return &claim{memory: m, userID: userID, account: a}
}

// leave gives back everything. It is for use on a nil claim, too.
func (c *claim) leave() {
	if c == nil {
		return
	}
	c.shrink(0)
	c.memory.mu.Lock()
	defer c.memory.mu.Unlock()
	if c.account.requests--; c.account.requests == 0 {
		delete(c.memory.users, c.userID)
	}
}

// wait takes n more bytes. It waits for others to give them back, and returns
// errBusy when that takes too long. Who waits should hold nothing yet.
func (c *claim) wait(ctx context.Context, n int64) error {
	if c.grow(n) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, memoryWait)
	defer cancel()
	if c.account.bytes.Acquire(ctx, n) != nil {
		return errBusy
	}
	if c.memory.all.Acquire(ctx, n) != nil {
		c.account.bytes.Release(n)
		return errBusy
	}
	c.bytes += n
	return nil
}

// grow takes n more bytes, if they are there.
func (c *claim) grow(n int64) bool {
	if !c.account.bytes.TryAcquire(n) {
		return false
	}
	if !c.memory.all.TryAcquire(n) {
		c.account.bytes.Release(n)
		return false
	}
	c.bytes += n
	return true
}

// shrink gives back what is held above n bytes.
func (c *claim) shrink(n int64) {
	if back := c.bytes - n; back > 0 {
		c.memory.all.Release(back)
		c.account.bytes.Release(back)
		c.bytes = n
	}
}
