package httpapi

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
)

const (
	// bodyCost is how many bytes of memory a byte of a body is counted for. It is
	// held as text, as parsed fields, as plaintext, as a record and in the
	// driver's buffer, and what is garbage counts until it is collected.
	bodyCost = 8

	// pageCost is what a page of a list may cost, in bytes: 100 credentials whose
	// values are as long as they may be, read and encoded.
	pageCost = 4 << 20

	// compressedCost is what a byte of a body is counted for before it is
	// decompressed.
	compressedCost = 2

	// leastShare is the least that a user may hold, in bytes: a body of the largest
	// size that is hardly compressed, and what it is decompressed with.
	leastShare = (bodyCost+compressedCost)*(maxJSON+1) + treesCost + 1<<maxWindowBits

	// statementsEach is how many writes of one user's are with the database at the
	// same time. It has a few connections, for which all others would wait.
	statementsEach = 2

	// workPerSecond and workBurst are how many microseconds a second a user's
	// requests may work, in the long run and at once.
	workPerSecond = 250_000
	workBurst     = 1_000_000

	// shareWait is how long a request waits for memory, or for its turn, before it
	// is answered 503.
	shareWait = 5 * time.Second
)

var errBusy = errors.New("the requests under way take all that they, or this user's, may take")

// shares bounds what requests take at the same time: memory over all callers, and
// for each user a share of it, of the requests, of the statements and of the
// processors, so that nobody can take them from the others. It is safe for
// concurrent use.
type shares struct {
	all      *semaphore.Weighted
	share    int64
	requests int

	mu     sync.Mutex
	users  map[int64]*account
	unused []*account // of users without a request, to be used again
}

// account is what the requests of one user take.
type account struct {
	bytes      *semaphore.Weighted
	statements *semaphore.Weighted
	turn       *semaphore.Weighted // of one: see claim.work
	pace       *rate.Limiter       // of microseconds of work
	ready      time.Time           // when the next work may begin; whoever has the turn has it
	requests   int
}

func newShares(most int64, requests int) *shares {
	share := max(most/4, leastShare)
	return &shares{
		all:      semaphore.NewWeighted(max(most, share)),
		share:    share,
		requests: requests,
		users:    make(map[int64]*account),
	}
}

// claim is what one request takes. Only the request's goroutine uses it.
type claim struct {
	shares  *shares
	userID  int64
	account *account
	bytes   int64
}

// enter begins a request of the user's. It returns nil if the user has as many
// requests as may be served at the same time. The caller calls leave.
func (s *shares) enter(userID int64) *claim {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.users[userID]
	if !ok {
		a = s.newAccount()
		s.users[userID] = a
	}
	if a.requests >= s.requests {
		return nil
	}
	a.requests++
	return &claim{shares: s, userID: userID, account: a}
}

// leave gives back everything. It is for use on a nil claim, too.
func (c *claim) leave() {
	if c == nil {
		return
	}
	c.shrink(0)
	c.shares.mu.Lock()
	defer c.shares.mu.Unlock()
	if c.account.requests--; c.account.requests == 0 {
		delete(c.shares.users, c.userID)
		c.shares.keep(c.account)
	}
}

// unusedAccounts is how many accounts are kept to be used again, which spares most
// requests the making of one.
const unusedAccounts = 64

func (s *shares) newAccount() *account {
	if last := len(s.unused) - 1; last >= 0 {
		a := s.unused[last]
		s.unused = s.unused[:last]
		return a
	}
	return &account{
		bytes:      semaphore.NewWeighted(s.share),
		statements: semaphore.NewWeighted(statementsEach),
		turn:       semaphore.NewWeighted(1),
		pace:       rate.NewLimiter(workPerSecond, workBurst),
	}
}

// keep keeps an account that nobody uses, unless it remembers that its user worked.
func (s *shares) keep(a *account) {
	if a.ready.IsZero() && len(s.unused) < unusedAccounts {
		s.unused = append(s.unused, a)
	}
}

// wait takes n more bytes. It waits for others to give them back, and returns
// errBusy when that takes too long. Who waits should hold nothing yet.
func (c *claim) wait(ctx context.Context, n int64) error {
	if c.grow(n) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, shareWait)
	defer cancel()
	if c.account.bytes.Acquire(ctx, n) != nil {
		return errBusy
	}
	if c.shares.all.Acquire(ctx, n) != nil {
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
	if !c.shares.all.TryAcquire(n) {
		c.account.bytes.Release(n)
		return false
	}
	c.bytes += n
	return true
}

// write runs f, which writes to the database, when few other requests of the user
// do. It returns errBusy when its turn does not come soon.
func (c *claim) write(ctx context.Context, f func() error) error {
	statements := c.account.statements
	if !statements.TryAcquire(1) {
		waiting, cancel := context.WithTimeout(ctx, shareWait)
		defer cancel()
		if statements.Acquire(waiting, 1) != nil {
			return errBusy
		}
	}
	defer statements.Release(1)
	return f()
}

// work runs f when no other request of the user works, and all of them have not
// worked too much. What takes processor time, reading a page of a list or
// decompressing a body, is work. So one user leaves the processors to the others. It
// returns errBusy when its turn does not come soon.
func (c *claim) work(ctx context.Context, f func()) error {
	ctx, cancel := context.WithTimeout(ctx, shareWait)
	defer cancel()
	a := c.account
	if a.turn.Acquire(ctx, 1) != nil {
		return errBusy
	}
	defer a.turn.Release(1)
	if wait := time.Until(a.ready); wait > 0 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return errBusy
		}
	}
	began := time.Now()
	f()
	ended := time.Now()
	worked := min(workBurst, int(ended.Sub(began).Microseconds()))
	a.ready = ended.Add(a.pace.ReserveN(ended, worked).DelayFrom(ended))
	return nil
}

// shrink gives back what is held above n bytes.
func (c *claim) shrink(n int64) {
	if back := c.bytes - n; back > 0 {
		c.shares.all.Release(back)
		c.account.bytes.Release(back)
		c.bytes = n
	}
}
