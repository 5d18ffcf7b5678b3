package access

import (
	"errors"
	"time"

	"github.com/lockwood-kms/lockwood/access/protocol"
)

// ErrReauth means that the user has to connect again: there is no credential, it does not
// open, or its grant is dead.
var ErrReauth = errors.New("the user has to connect again")

// ErrTooMany means that resource servers rejected access tokens of the credential so often
// that there is no further grant for a while. It comes in a *RetryError.
var ErrTooMany = errors.New("too many access tokens were rejected")

// ErrBusy means that as many grants wait as may. It comes in a *RetryError.
var ErrBusy = errors.New("too many grants are under way")

// ErrWaiting means that the time of the caller was over before there was an access token.
// It comes in a *RetryError.
var ErrWaiting = errors.New("the access token is still being fetched")

// RetryError is an error that may be gone later.
type RetryError struct {
	Err   error
	After time.Duration
}

// Error implements error.
func (e *RetryError) Error() string { return e.Err.Error() }

// Unwrap returns the error.
func (e *RetryError) Unwrap() error { return e.Err }

// GrantError means that the last grant failed, and that the user need not connect again.
type GrantError struct {
	// Verdict is one that is not dead.
	Verdict protocol.Verdict
	// After is how long it is until the next grant.
	After time.Duration
	// Endpoint is the token endpoint of the credential, as it was deposited. It may hold a
	// secret, and is in no text of the error.
	Endpoint string
}

// Error implements error.
func (e *GrantError) Error() string { return "the token endpoint: " + string(e.Verdict) }

// Refused reports whether the endpoint is not admitted, or has refused the request.
func (e *GrantError) Refused() bool { return e.Verdict == protocol.Refused }

// Failed reports whether the endpoint's answer was of no use. Otherwise there was none.
func (e *GrantError) Failed() bool { return e.Verdict == protocol.Failed }
