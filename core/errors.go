package core

import (
	"errors"
	"fmt"
	"time"
)

// The sentinels that a KeyProvider, and the ring above it, return. They cross
// process boundaries unchanged; test for them with errors.Is. An error that
// matches none of them is treated as ErrUnavailable by the ring.
var (
	// ErrKeyMissing means that no key is configured. The service runs, lists
	// and deletes, and neither seals nor opens.
	ErrKeyMissing = errors.New("no encryption key is configured")

	// ErrKeyMismatch means that no configured KEK unwraps the store's primary
	// data key: the store was written under another key; or that the current KEK
	// was named compromised. Nothing is written until the right key is configured.
	ErrKeyMismatch = errors.New("the configured key is not the key of this store")

	// ErrKeyDenied means that the provider refused: permission withdrawn, key
	// disabled or destroyed. It is an answer, not an outage, so data keys leave
	// memory and the call is not retried.
	ErrKeyDenied = errors.New("the key provider denied the use of the key")

	// ErrUnavailable means that there was no answer: timeout, throttling, no
	// connection, a plugin that died. It is retried with backoff.
	ErrUnavailable = errors.New("the key provider is unavailable")

	// ErrInvalidCiphertext means that a wrapped key or a record is corrupt,
	// truncated, foreign, or bound to other aad. Which of these it was is never
	// told, so that the answer is no oracle. It is never retried.
	ErrInvalidCiphertext = errors.New("invalid ciphertext")

	// ErrStoreUnavailable means that the database did not answer. No provider
	// returns it; stores do, and the ring passes it on.
	ErrStoreUnavailable = errors.New("the database is unavailable")

	// ErrOutcomeUnknown is an ErrStoreUnavailable, and errors.Is says so: a write
	// was sent to the database and its answer was lost. It may have taken effect.
	// Where a store says which of its writes return it, any other error of theirs
	// means that nothing was written.
	ErrOutcomeUnknown = fmt.Errorf("%w: whether the write took effect is not known", ErrStoreUnavailable)

	// ErrRowsHidden means that the database may hide rows from the role that asks,
	// by row-level security, a view or a rule. Whatever counts or looks before
	// something is removed stops then, and changes nothing.
	ErrRowsHidden = errors.New("the database may hide rows from this role")
)

// RetryAfterError is an ErrUnavailable that knows when to ask again, for
// example because a KMS said so or a backoff is running.
type RetryAfterError struct {
	// After is how long to wait before asking again; at least zero.
	After time.Duration
	// Err is the failure itself.
	Err error
}

// Error returns the text of the failure.
func (e *RetryAfterError) Error() string { return e.Err.Error() }

// Unwrap returns the failure.
func (e *RetryAfterError) Unwrap() error { return e.Err }

// RetryAfter returns the wait that err asks for, or zero if it names none.
func RetryAfter(err error) time.Duration {
	if hint, ok := errors.AsType[*RetryAfterError](err); ok {
		return hint.After
	}
	return 0
}
