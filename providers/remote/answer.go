package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/lockwood-kms/lockwood/core"
)

// NoAnswer is the error of a call whose context ended before the service answered,
// whatever a library made of that.
func NoAnswer(ctx context.Context, service, operation string) error {
	return fmt.Errorf("%s gave no answer to %s in time: %w: %w", service, operation, core.ErrUnavailable, ctx.Err())
}

// Later returns err with the wait that the service asked for, if it asked for one and err
// is an outage.
func Later(err error, wait time.Duration) error {
	if wait > 0 && errors.Is(err, core.ErrUnavailable) {
		return &core.RetryAfterError{After: wait, Err: err}
	}
	return err
}

// RetryAfter returns the wait that the header of an answer asks for, in whole seconds, or
// zero; RFC 9110, section 10.2.3.
func RetryAfter(header http.Header) time.Duration {
	seconds, err := strconv.ParseUint(header.Get("Retry-After"), 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}
