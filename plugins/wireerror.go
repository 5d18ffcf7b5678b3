package plugins

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/plugins/keyproviderpb"
)

// maxRetryAfter bounds the wait that a plugin can ask for: an absurd hint must not
// put the key to sleep for good.
const maxRetryAfter = time.Hour

// errConfiguration marks a failure that stays until the operator changes the
// configuration. It is an error of Host.Open and ends the start.
var errConfiguration = errors.New("configuration error")

// reasons is how failures cross: first match wins, so that an error that is a
// denial and an outage at once is an answer.
var reasons = []struct {
	err    error
	reason keyproviderpb.ErrorReason
	code   codes.Code
}{
	{errConfiguration, keyproviderpb.ErrorReason_ERROR_REASON_INVALID_CONFIGURATION, codes.InvalidArgument},
	{core.ErrKeyDenied, keyproviderpb.ErrorReason_ERROR_REASON_KEY_DENIED, codes.PermissionDenied},
	{core.ErrInvalidCiphertext, keyproviderpb.ErrorReason_ERROR_REASON_INVALID_CIPHERTEXT, codes.DataLoss},
	{core.ErrKeyMissing, keyproviderpb.ErrorReason_ERROR_REASON_KEY_MISSING, codes.FailedPrecondition},
	{core.ErrKeyMismatch, keyproviderpb.ErrorReason_ERROR_REASON_KEY_MISMATCH, codes.Aborted},
	{core.ErrUnavailable, keyproviderpb.ErrorReason_ERROR_REASON_UNAVAILABLE, codes.Unavailable},
}

// toStatus returns err as a gRPC status with its ErrorDetail; nil for nil.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	code, detail := codes.Internal, &keyproviderpb.ErrorDetail{}
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			code, detail.Reason = r.code, r.reason
			break
		}
	}
	if after := core.RetryAfter(err); after > 0 && code == codes.Unavailable {
		detail.RetryAfter = durationpb.New(after)
	}
	s, detailErr := status.New(code, textOf(err.Error(), detail.GetReason())).WithDetails(detail)
	if detailErr != nil {
		return fmt.Errorf("encoding an error: %w", detailErr)
	}
	return s.Err()
}

// textOf is the text of a failure as it crosses: one line, but that of a configuration
// error, which has a line for each mistake.
func textOf(text string, reason keyproviderpb.ErrorReason) string {
	if reason == keyproviderpb.ErrorReason_ERROR_REASON_INVALID_CONFIGURATION {
		return cutLines(text, maxErrorSize)
	}
	return cut(text, maxErrorSize)
}

// answer is a failure that the plugin itself answered.
type answer struct {
	text     string
	sentinel error
}

// Error returns the plugin's text.
func (a *answer) Error() string { return a.text }

// Unwrap returns the sentinel.
func (a *answer) Unwrap() error { return a.sentinel }

// silence is a call that the plugin did not answer as the protocol says: it was
// cut off, took too long, or returned what cannot be.
type silence struct {
	err error // says what happened
	ctx error // the caller's context error, if that is why
	// interrupted means that the connection broke and the call may be repeated.
	interrupted bool
}

// Error returns what happened.
func (s *silence) Error() string { return fmt.Sprintf("%v: %v", s.err, core.ErrUnavailable) }

// Unwrap returns core.ErrUnavailable and, if the caller gave up, the context's
// error.
func (s *silence) Unwrap() []error {
	if s.ctx == nil {
		return []error{core.ErrUnavailable}
	}
	return []error{core.ErrUnavailable, s.ctx}
}

// nonsense is an answer that breaks the protocol.
func nonsense(err error) error {
	return &silence{err: fmt.Errorf("the plugin answered %w", err)}
}

// fromStatus returns the error of a call as an *answer, perhaps inside a
// core.RetryAfterError, or as a *silence; nil for nil.
func fromStatus(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	for _, d := range s.Details() {
		if detail, ok := d.(*keyproviderpb.ErrorDetail); ok {
			return answered(s.Message(), detail)
		}
	}
	if ctx.Err() != nil {
		return &silence{err: fmt.Errorf("the call was given up: %w", ctx.Err()), ctx: ctx.Err()}
	}
	text := fmt.Errorf("the plugin did not answer (%v: %s)", s.Code(), cut(s.Message(), maxErrorSize))
	cutOff := s.Code() == codes.Unavailable || s.Code() == codes.Canceled
	return &silence{err: text, interrupted: cutOff}
}

func answered(text string, detail *keyproviderpb.ErrorDetail) error {
	a := &answer{text: textOf(text, detail.GetReason()), sentinel: core.ErrUnavailable}
	for _, r := range reasons {
		if r.reason == detail.GetReason() {
			a.sentinel = r.err
		}
	}
	after := min(detail.GetRetryAfter().AsDuration(), maxRetryAfter)
	if after > 0 && errors.Is(a, core.ErrUnavailable) {
		return &core.RetryAfterError{After: after, Err: a}
	}
	return a
}
