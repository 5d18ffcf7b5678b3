package access

import (
	"math/rand/v2"
	"time"

	"github.com/lockwood-kms/lockwood/access/protocol"
)

// How long it is until the next grant after so many failures in a row: from least to most,
// twice as long each time.
var pauses = map[protocol.Verdict]struct{ least, most time.Duration }{
	protocol.Refused:     {5 * time.Second, 5 * time.Minute},
	protocol.Failed:      {2 * time.Second, 5 * time.Minute},
	protocol.Unavailable: {time.Second, 5 * time.Minute},
	protocol.Unknown:     {2 * time.Second, 5 * time.Minute},
	// What is said to be dead is asked for again now and then, so that a mistake at the
	// server does not leave its users without a way back.
	protocol.InvalidGrant:       {10 * time.Minute, 24 * time.Hour},
	protocol.UnauthorizedClient: {10 * time.Minute, 24 * time.Hour},
	protocol.InvalidClient:      {10 * time.Minute, 10 * time.Minute},
}

// pauseAfter returns how long to wait after a verdict that is the last of so many
// failures in a row, which counts from 1. It is spread over a tenth, so that instances,
// and credentials, do not come back at once.
func pauseAfter(v protocol.Verdict, failures int) time.Duration {
	p, ok := pauses[v]
	if !ok {
		return 0
	}
	d := p.least
	for range failures - 1 {
		if d *= 2; d >= p.most {
			d = p.most
			break
		}
	}
	return d - rand.N(d/10+1) //nolint:gosec // jitter spreads grants; nobody gains by guessing it
}

// nextAttempt is how long it is until the next grant.
func (f *flight) nextAttempt() time.Duration {
	return max(pauseAfter(f.answer.Verdict, f.failures+1), f.answer.RetryAfter)
}
