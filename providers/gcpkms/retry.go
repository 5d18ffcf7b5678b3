package gcpkms

import (
	"time"

	"github.com/googleapis/gax-go/v2"
	"google.golang.org/grpc/codes"
)

const (
	// attempts bounds how often a call is made that nobody answered. What lasts
	// longer is the ring's to wait for, and its callers' to hear of.
	attempts = 4
	// firstBackoff and maxBackoff bound the wait before another attempt.
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 2 * time.Second
)

// retryer retries what no server has answered. The SDK's own policy goes on until
// the deadline, and then the reason is lost.
type retryer struct {
	gax.Retryer
	left int
}

// Retry implements gax.Retryer.
func (r *retryer) Retry(err error) (time.Duration, bool) {
	if r.left--; r.left <= 0 {
		return 0, false
	}
	return r.Retryer.Retry(err)
}

// retry is the policy as an option of a call.
func (o *Options) retry() gax.CallOption {
	limit := o.MaxBackoff
	if limit == 0 {
		limit = maxBackoff
	}
	return gax.WithRetry(func() gax.Retryer {
		backoff := gax.Backoff{Initial: min(firstBackoff, limit), Max: limit, Multiplier: 2}
		return &retryer{gax.OnCodes([]codes.Code{codes.Unavailable}, backoff), attempts}
	})
}
