package httpapi

import (
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// sweepAbove is the number of users above which those who have not sent anything
// for a while are forgotten.
const sweepAbove = 10_000

// userLimiter limits how many requests each user may send. It stands behind the
// verification of the token, so that nobody can use up what is another's.
type userLimiter struct {
	rate  rate.Limit
	burst int

	mu    sync.Mutex
	users map[int64]*rate.Limiter
	sweep int // number of users at which to look again
}

// newUserLimiter returns nil if perSecond is not positive.
func newUserLimiter(perSecond float64, burst int) *userLimiter {
	if perSecond <= 0 {
		return nil
	}
	if burst <= 0 {
		burst = max(1, int(math.Ceil(2*perSecond)))
	}
	return &userLimiter{rate: rate.Limit(perSecond), burst: burst,
		users: make(map[int64]*rate.Limiter), sweep: sweepAbove}
}

// wait takes a request of the user's, and returns 0 if it may be served now, or
// else how long the user has to wait. A nil limiter lets everything pass.
func (l *userLimiter) wait(userID int64) time.Duration {
	if l == nil {
		return 0
	}
	limiter := l.user(userID)
	reservation := limiter.Reserve()
	delay := reservation.Delay()
	if delay > 0 {
		reservation.Cancel()
	}
	return delay
}

func (l *userLimiter) user(userID int64) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	limiter, ok := l.users[userID]
	if !ok {
		l.forget()
		limiter = rate.NewLimiter(l.rate, l.burst)
		l.users[userID] = limiter
	}
	return limiter
}

// forget drops users whose burst is whole again: a new limiter is the same.
func (l *userLimiter) forget() {
	if len(l.users) < l.sweep {
		return
	}
	for id, limiter := range l.users {
		if limiter.Tokens() >= float64(l.burst) {
			delete(l.users, id)
		}
	}
	l.sweep = max(sweepAbove, 2*len(l.users))
}
