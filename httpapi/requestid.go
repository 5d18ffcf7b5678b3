package httpapi

import (
	"crypto/rand"
	"strings"
)

const (
	maxRequestID   = 64
	requestIDChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
)

// requestID returns the ID that a trusted proxy gave a request, if it is of sane
// length and characters, and else a random one. That of anybody else is not taken:
// it is repeated in the answer and in the log, where a client could place a secret
// by mistake, or another request's ID on purpose.
func requestID(given string, trusted bool) string {
	if trusted && given != "" && len(given) <= maxRequestID && strings.Trim(given, requestIDChars) == "" {
		return given
	}
	return rand.Text()
}
