package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// The states that Lockwood answers with, for errors.Is. docs/connectors.md says what to
// do about each.
var (
	// ErrNeedsReauth means that the user has to connect the MCP server again: there is no
	// credential, it does not open, or its grant is dead.
	ErrNeedsReauth = errors.New("the user has to connect the MCP server again")
	// ErrUnauthorized means that the user token is not valid: expired, or signed with
	// another FOREST_AUTH_SECRET.
	ErrUnauthorized = errors.New("the user token is not valid")
	// ErrInvalidRequest means that a field breaks a rule; Error.Message says which.
	ErrInvalidRequest = errors.New("the request is not valid")
	// ErrNoRoute means that there is no such route: access tokens are off, or the URL is
	// that of another service.
	ErrNoRoute = errors.New("there is no such route: access tokens are off, or this is not the URL of Lockwood")
	// ErrQuotaExceeded means that the user has as many credentials as the quota allows.
	ErrQuotaExceeded = errors.New("the user has as many credentials as the quota allows")
	// ErrTokenEndpointRefused means that the token endpoint is not admitted, or refused the
	// request for a reason that is not the user's.
	ErrTokenEndpointRefused = errors.New("the token endpoint refused the request, or is not admitted")
	// ErrTokenEndpointFailed means that the token endpoint's answer was of no use.
	ErrTokenEndpointFailed = errors.New("the token endpoint's answer was of no use")
	// ErrTokenEndpointUnavailable means that the token endpoint was not reached, did not
	// answer in time, or said to come back later.
	ErrTokenEndpointUnavailable = errors.New("the token endpoint does not answer")
	// ErrTooManyRequests means that the user sent too many requests, or that rejected tokens
	// have caused two grants in a minute.
	ErrTooManyRequests = errors.New("too many requests")
	// ErrServerBusy means that Lockwood has too much under way.
	ErrServerBusy = errors.New("too much is under way in Lockwood")
	// ErrKeyMissing means that Lockwood has no encryption key.
	ErrKeyMissing = errors.New("no encryption key is configured in Lockwood")
	// ErrKeyMismatch means that Lockwood's key is not that of its store.
	ErrKeyMismatch = errors.New("the encryption key in Lockwood is that of another store")
	// ErrKeyDenied means that the key provider refuses Lockwood the use of the key.
	ErrKeyDenied = errors.New("the key provider refuses the use of the key")
	// ErrKeyUnavailable means that the key provider does not answer.
	ErrKeyUnavailable = errors.New("the key provider does not answer")
	// ErrDatabaseUnavailable means that Lockwood's database does not answer.
	ErrDatabaseUnavailable = errors.New("the database of Lockwood does not answer")
	// ErrDatabaseHidesRows means that a disconnect found nothing, and that the database may
	// hide the credential from Lockwood.
	ErrDatabaseHidesRows = errors.New("the database of Lockwood may hide the credential")
	// ErrUnexpected is any other answer: a defect, or that of a proxy in front of Lockwood.
	ErrUnexpected = errors.New("an answer that is not in Lockwood's contract")
)

// states are the sentinels by the codes of docs/openapi.yaml.
var states = map[string]error{
	"token_endpoint_refused":           ErrTokenEndpointRefused,
	"token_endpoint_failed":            ErrTokenEndpointFailed,
	"token_endpoint_unavailable":       ErrTokenEndpointUnavailable,
	"credential_quota_exceeded":        ErrQuotaExceeded,
	"server_busy":                      ErrServerBusy,
	"executor_encryption_key_missing":  ErrKeyMissing,
	"executor_encryption_key_mismatch": ErrKeyMismatch,
	"key_provider_denied":              ErrKeyDenied,
	"key_provider_unavailable":         ErrKeyUnavailable,
	"database_unavailable":             ErrDatabaseUnavailable,
	"database_hides_rows":              ErrDatabaseHidesRows,
}

// Error is an answer of Lockwood's other than success. It unwraps to one of the Err
// variables.
type Error struct {
	// Status is the HTTP status.
	Status int
	// Code is the code in the answer, such as "token_endpoint_failed", or "".
	Code string
	// Message is the text of an answer without a code. It names fields and never a value.
	Message string
	// RetryAfter is after how long to try again, or 0 if Lockwood does not say.
	RetryAfter time.Duration
	// RequestID finds the request in Lockwood's log.
	RequestID string

	state error
}

// Error says what state it is, and which request in Lockwood's log.
func (e *Error) Error() string {
	text := e.state.Error()
	if e.Message != "" {
		text += ": " + e.Message
	}
	return fmt.Sprintf("%s (status %d, request ID %q)", text, e.Status, e.RequestID)
}

// Unwrap returns the state, one of the Err variables.
func (e *Error) Unwrap() error { return e.state }

// Temporary reports whether the same request may succeed later without anybody doing
// anything.
func (e *Error) Temporary() bool {
	switch {
	case errors.Is(e.state, ErrKeyMissing), errors.Is(e.state, ErrKeyMismatch), errors.Is(e.state, ErrKeyDenied), errors.Is(e.state, ErrDatabaseHidesRows):
		return false
	}
	return e.Status == http.StatusTooManyRequests || e.Status >= http.StatusBadGateway
}

// newError reads an answer that is no success.
func newError(resp *http.Response, text []byte) *Error {
	var body struct {
		Code    string `json:"code"`
		Error   string `json:"error"`
		Awaited string `json:"awaitingInputReason"`
	}
	_ = json.Unmarshal(text, &body) // a proxy answers something else, which is not repeated
	e := &Error{
		Status: resp.StatusCode, RequestID: resp.Header.Get("X-Request-Id"),
		RetryAfter: retryAfter(resp.Header.Get("Retry-After")), state: ErrUnexpected,
	}
	state, known := states[body.Code]
	switch {
	case known:
		e.Code, e.state = body.Code, state
	case e.Status == http.StatusConflict && body.Awaited == "needs-oauth-reauth":
		e.state = ErrNeedsReauth
	case e.Status == http.StatusUnauthorized:
		e.state = ErrUnauthorized
	case e.Status == http.StatusTooManyRequests:
		e.state = ErrTooManyRequests
	case e.Status == http.StatusNotFound:
		e.state = ErrNoRoute
	case e.Status == http.StatusBadRequest, e.Status == http.StatusRequestEntityTooLarge:
		e.state, e.Message = ErrInvalidRequest, body.Error
	}
	return e
}

// retryAfter reads a Retry-After of seconds or, as a proxy may send it, of a date (RFC
// 9110, section 10.2.3).
func retryAfter(value string) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}
