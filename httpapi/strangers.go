package httpapi

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// strangerTime is how long a body may take to come before anybody knows whose it is, with
// the wait for its memory. It is less than shareWait: who waits for memory that bodies
// hold which do not come gets it.
const strangerTime = 3 * time.Second

// strangers are the requests whose bodies are read although nobody knows whose they are.
// When they are as many as may be, a new one ends the oldest: a body that comes is there at
// once, and one that does not come keeps nobody out. It is safe for concurrent use.
type strangers struct {
	most int

	mu      sync.Mutex
	reading list.List // of func(), which end one; the oldest is first
}

// newStrangers returns those of a server. They are at most half of the requests of a
// user, for those that end take a moment to leave, and as many as have memory in a user's share.
func newStrangers(s *shares) *strangers {
	return &strangers{most: max(1, min(s.requests/2, int(s.share/(bodyCost*(maxExchange+1)))))}
}

// enter begins the reading of a body. The context ends when it takes too long, and is
// canceled when another takes its place; then reading fails. The caller calls leave when the body
// is read.
func (s *strangers) enter(x *exchange) (ctx context.Context, leave func()) {
	ctx, cancel := context.WithTimeout(x.Context(), strangerTime)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reading.Len() >= s.most {
		end, _ := s.reading.Remove(s.reading.Front()).(func())
		end()
	}
	x.readUntil(time.Now().Add(strangerTime))
	place := s.reading.PushBack(func() {
		cancel()
		x.readUntil(time.Now())
	})
	return ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.reading.Remove(place)
		cancel()
		// net/http waits for what comes next while the request is served.
		x.readUntil(time.Time{})
	}
}
