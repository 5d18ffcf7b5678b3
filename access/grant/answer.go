package grant

import (
	"bytes"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/core"
)

// The bounds of what is taken from an answer.
const (
	maxBody       = 1 << 20  // bytes
	maxToken      = 16 << 10 // bytes of an access token, as many as a head
	maxScope      = 2048     // bytes
	maxExpiresIn  = 365 * 24 * time.Hour
	maxRetryAfter = time.Hour
)

// Answer is what came of a request.
type Answer struct {
	// Verdict is protocol.None if there is an access token.
	Verdict     protocol.Verdict
	AccessToken core.Secret
	// ExpiresIn is how long the access token is valid from SentAt, at most a year; nil if
	// the server did not say.
	ExpiresIn *time.Duration
	// Scope is what the server said it granted; nil if it said nothing, or something that
	// is not text of at most 2,048 bytes.
	Scope *string
	// RefreshToken is in every answer that has one, also beside a verdict: it is to be
	// stored first. An empty one is none.
	RefreshToken *core.Secret

	// Status is that of the response, 0 if there was none.
	Status int
	// Code is the error code of the response if it is a known one, else "". Other text of
	// the server is never kept.
	Code string
	// RetryAfter is how long the server wants to be left alone, at most an hour.
	RetryAfter time.Duration
	// SentAt is when the first byte of the token left, by this machine's clock.
	SentAt time.Time
	// Err is what went wrong if there was no response. It holds no secret, and may name
	// the address of the endpoint.
	Err error
}

// body is the fields of a response that are read. Each may have any type.
type body struct {
	AccessToken  jsontext.Value `json:"access_token"`
	TokenType    jsontext.Value `json:"token_type"`
	ExpiresIn    jsontext.Value `json:"expires_in"`
	RefreshToken jsontext.Value `json:"refresh_token"`
	Scope        jsontext.Value `json:"scope"`
	Error        jsontext.Value `json:"error"`
	OK           jsontext.Value `json:"ok"`
}

// read reads the response to a token that was presented. cut says that the body did not
// come to its end, or is too long.
func read(status int, header http.Header, raw []byte, cut bool, now time.Time) Answer {
	a := Answer{Status: status, RetryAfter: retryAfter(header.Get("Retry-After"), now)}
	var b body
	err := json.Unmarshal(bytes.TrimPrefix(raw, []byte("\uFEFF")), &b, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	parsed := err == nil && !cut
	if !parsed {
		b = body{}
	}
	code, known := codes[text(b.Error)]
	if known {
		a.Code = text(b.Error)
	}
	success := status >= 200 && status <= 299
	if success {
		if token := text(b.RefreshToken); token != "" {
			a.RefreshToken = new(core.Secret)
			*a.RefreshToken = core.Secret(token)
		}
	}
	switch {
	case cut, status == http.StatusBadGateway, status == http.StatusGatewayTimeout:
		a.Verdict = protocol.Unknown
	case success && b.failed() && known && code.in200:
		a.Verdict = code.verdict
	case success:
		a.granted(&b)
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		a.Verdict = protocol.Unavailable
	case status >= 400 && status <= 499 && known:
		a.Verdict = code.verdict
	case status >= 400 && status <= 499:
		a.Verdict = protocol.Refused
	default: // a redirect, or an error of the server's
		a.Verdict = protocol.Failed
	}
	return a
}

// failed reports an error that comes with a status of success.
func (b *body) failed() bool {
	return string(b.OK) == "false" || text(b.AccessToken) == "" && text(b.Error) != ""
}

// granted reads an answer of success, which is a failure unless it has a bearer token.
func (a *Answer) granted(b *body) {
	token := text(b.AccessToken)
	kind := b.TokenType
	absent := len(kind) == 0 || kind.Kind() == 'n'
	if b.failed() || !usable(token) || !absent && !strings.EqualFold(text(kind), "bearer") {
		a.Verdict = protocol.Failed
		return
	}
	a.AccessToken, a.ExpiresIn = core.Secret(token), expiresIn(b.ExpiresIn)
	if scope := text(b.Scope); b.Scope.Kind() == '"' && len(scope) <= maxScope && !strings.ContainsFunc(scope, unicode.IsControl) {
		a.Scope = &scope
	}
}

// usable reports whether a token can stand in a header. Each request that is answered
// holds it, and does not count it as memory: so it is not long.
func usable(token string) bool {
	return token != "" && len(token) <= maxToken && utf8.ValidString(token) && !strings.ContainsFunc(token, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) })
}

// text returns a JSON string, and "" for what is none.
func text(v jsontext.Value) (s string) {
	if v.Kind() != '"' || json.Unmarshal(v, &s, jsontext.AllowInvalidUTF8(true)) != nil {
		return ""
	}
	return s
}

// expiresIn reads a number of seconds, or one in digits, as some servers send it; what is
// neither says nothing. Below zero is zero.
func expiresIn(v jsontext.Value) *time.Duration {
	digits := string(v)
	switch v.Kind() {
	case '0':
	case '"':
		if digits = text(v); digits == "" || strings.Trim(digits, "0123456789") != "" {
			return nil
		}
	default:
		return nil
	}
	seconds, err := strconv.ParseFloat(digits, 64)
	if err != nil && !math.IsInf(seconds, 0) {
		return nil
	}
	d := time.Duration(min(max(seconds, 0), maxExpiresIn.Seconds()) * float64(time.Second))
	return &d
}

// retryAfter reads the header (RFC 9110, section 10.2.3), and is zero for what it cannot
// read.
func retryAfter(value string, now time.Time) time.Duration {
	if value == "" {
		return 0
	}
	if strings.Trim(value, "0123456789") == "" {
		seconds, err := strconv.Atoi(value)
		if err != nil || seconds > int(maxRetryAfter/time.Second) {
			return maxRetryAfter
		}
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(0, at.Sub(now)), maxRetryAfter)
}
