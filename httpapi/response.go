package httpapi

import (
	"errors"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
)

const (
	typeJSON = "application/json; charset=utf-8"
	typeText = "text/plain; charset=utf-8"
)

// response is the answer to one request. Handlers return it rather than write
// it, so that headers, log and metrics stand in one place.
type response struct {
	status      int
	contentType string
	body        string
	allow       string        // the Allow header, if not empty
	retryAfter  time.Duration // the Retry-After header, if not zero
	// stream writes a body whose length is not known, instead of body.
	stream func(io.Writer) error
}

var (
	stored         = jsonResponse(http.StatusOK, `{"stored":true}`)
	noContent      = response{status: http.StatusNoContent}
	unauthorized   = errorResponse(http.StatusUnauthorized, "Unauthorized")
	crossOrigin    = errorResponse(http.StatusForbidden, "Cross-origin form refused")
	tooLarge       = errorResponse(http.StatusRequestEntityTooLarge, "Request body too large")
	windowTooLarge = errorResponse(http.StatusRequestEntityTooLarge, "Compression window too large")
	unknownCode    = errorResponse(http.StatusUnsupportedMediaType, "Unsupported content encoding")
	unreadable     = errorResponse(http.StatusBadRequest, "Request body could not be read")
	malformed      = errorResponse(http.StatusBadRequest, "Invalid request body — body: malformed JSON")
	tooMany        = errorResponse(http.StatusTooManyRequests, "Too many requests")
	busy           = response{status: http.StatusServiceUnavailable, contentType: typeJSON, body: `{"code":"server_busy"}`, retryAfter: time.Second}
	internal       = errorResponse(http.StatusInternalServerError, "Internal server error")
	notFound       = textResponse(http.StatusNotFound)
)

func jsonResponse(status int, body string) response {
	return response{status: status, contentType: typeJSON, body: body}
}

// errorResponse answers {"error": message}.
func errorResponse(status int, message string) response {
	return jsonResponse(status, `{"error":`+quote(message)+`}`)
}

// textResponse answers as upstream's router does: the status in words.
func textResponse(status int) response {
	return response{status: status, contentType: typeText, body: http.StatusText(status)}
}

// after returns resp with a Retry-After header.
func (resp response) after(wait time.Duration) response {
	resp.retryAfter = wait
	return resp
}

// failures maps what goes wrong behind the Credentials seam to a response; the
// first entry that matches decides, anything else is a 500. The database comes
// first: a ring that cannot load its data keys from it fails for that reason.
var failures = []struct {
	is       error
	response response
	retry    bool // tell the client when to come back
}{
	{errBusy, busy, false},
	{core.ErrStoreUnavailable, jsonResponse(503, `{"code":"database_unavailable"}`), true},
	{core.ErrRowsHidden, jsonResponse(503, `{"code":"database_hides_rows"}`), false},
	{core.ErrKeyMissing, jsonResponse(503, `{"code":"executor_encryption_key_missing"}`), false},
	{core.ErrKeyMismatch, jsonResponse(503, `{"code":"executor_encryption_key_mismatch"}`), false},
	{core.ErrKeyDenied, jsonResponse(503, `{"code":"key_provider_denied"}`), false},
	{core.ErrUnavailable, jsonResponse(503, `{"code":"key_provider_unavailable"}`), true},
	{credential.ErrQuotaExceeded, jsonResponse(409, `{"code":"credential_quota_exceeded"}`), false},
	{credential.ErrUnstorable, errorResponse(400, "Invalid request body — a value holds a character that the database cannot hold"), false},
	{envelope.ErrNUL, errorResponse(400, "Invalid request body — a value holds a NUL character"), false},
}

// failure returns the response to err, which is not nil.
func failure(err error) response {
	for _, f := range failures {
		if errors.Is(err, f.is) {
			if f.retry {
				return f.response.after(max(core.RetryAfter(err), time.Second))
			}
			return f.response
		}
	}
	return internal
}

// write sends the response; body and headers are left out where HTTP says so. Its
// error is that of the stream, after which the answer is not complete.
func (resp *response) write(w http.ResponseWriter) error {
	h := w.Header()
	if resp.contentType != "" {
		h["Content-Type"] = []string{resp.contentType}
	}
	if resp.allow != "" {
		h["Allow"] = []string{resp.allow}
	}
	if resp.retryAfter > 0 {
		seconds := math.Ceil(resp.retryAfter.Seconds())
		h["Retry-After"] = []string{strconv.FormatFloat(seconds, 'f', 0, 64)}
	}
	if resp.stream != nil {
		w.WriteHeader(resp.status)
		return resp.stream(w)
	}
	if resp.status != http.StatusNoContent {
		h["Content-Length"] = []string{strconv.Itoa(len(resp.body))}
	}
	w.WriteHeader(resp.status)
	_, _ = io.WriteString(w, resp.body) // the client may be gone
	return nil
}
