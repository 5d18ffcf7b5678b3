package core

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// Secret is a string that must not be shown: a key, a token, a client secret.
// Formatting, logging and encoding it yield "[redacted]"; convert it to string
// to use it.
//
// Package fmt cannot call a method of an unexported field, and encoding/json
// takes a string as a map's key as it is: keep a Secret in exported fields, and
// out of keys, of whatever may be formatted.
type Secret string

// Format writes "[redacted]" for every verb. String alone would not do: fmt
// shows the value itself for a verb that is not one of text, such as %d.
func (Secret) Format(s fmt.State, _ rune) { writeRedacted(s) }

// String returns "[redacted]".
func (Secret) String() string { return redacted }

// GoString returns "[redacted]".
func (Secret) GoString() string { return redacted }

// LogValue returns "[redacted]".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "[redacted]", so that no encoder shows the value.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// SecretBytes is Secret for bytes. Convert it to []byte to use it. The same
// limits hold.
type SecretBytes []byte

// Format writes "[redacted]" for every verb.
func (SecretBytes) Format(s fmt.State, _ rune) { writeRedacted(s) }

// String returns "[redacted]".
func (SecretBytes) String() string { return redacted }

// GoString returns "[redacted]".
func (SecretBytes) GoString() string { return redacted }

// LogValue returns "[redacted]".
func (SecretBytes) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "[redacted]", so that no encoder shows the value.
func (SecretBytes) MarshalText() ([]byte, error) { return []byte(redacted), nil }

func writeRedacted(w io.Writer) {
	_, _ = io.WriteString(w, redacted) // fmt.State never fails
}
