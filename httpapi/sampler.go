package httpapi

import (
	"sync/atomic"

	"golang.org/x/time/rate"
)

const (
	deniedPerSecond = 5
	deniedBurst     = 50
)

// sampler lets some of many events through, so that nobody without a token can
// fill the log. It is safe for concurrent use.
type sampler struct {
	limiter *rate.Limiter
	left    atomic.Int64
}

func newSampler() *sampler {
	return &sampler{limiter: rate.NewLimiter(deniedPerSecond, deniedBurst)}
}

// sample reports whether an event is to be logged, and how many were left out
// since the last that was.
func (s *sampler) sample() (left int64, ok bool) {
	if !s.limiter.Allow() {
		s.left.Add(1)
		return 0, false
	}
	return s.left.Swap(0), true
}
