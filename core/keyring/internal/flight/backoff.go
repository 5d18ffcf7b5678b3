package flight

import (
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/lockwood-kms/lockwood/core"
)

// Failure is the memory of a failure: until its time its error is repeated instead
// of asking again. A nil Failure is none.
type Failure struct {
	err   error
	next  time.Time
	delay *backoff.ExponentialBackOff
}

// maxBackoff bounds the wait between attempts.
const maxBackoff = 30 * time.Second

// Wait returns the remembered error, with the time to wait, or nil if it is time to
// try again.
func (f *Failure) Wait(now time.Time) error {
	if f.Due(now) {
		return nil
	}
	return &core.RetryAfterError{After: f.next.Sub(now), Err: f.err}
}

// Due reports whether it is time to try again.
func (f *Failure) Due(now time.Time) bool { return f == nil || !now.Before(f.next) }

// Again returns the memory of one more failure after f. The first wait is half a
// second, or what err asks for, and each is longer than the one before.
func (f *Failure) Again(now time.Time, err error) *Failure {
	if f == nil {
		delay := backoff.NewExponentialBackOff()
		delay.InitialInterval, delay.MaxInterval = 500*time.Millisecond, maxBackoff
		delay.RandomizationFactor = 0.2
		f = &Failure{delay: delay}
	}
	f.err = err
	f.next = now.Add(max(f.delay.NextBackOff(), core.RetryAfter(err)))
	return f
}
