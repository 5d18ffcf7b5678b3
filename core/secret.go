package core

import "log/slog"

const redacted = "[redacted]"

// Secret is a string that must not be shown: a key, a token, a client secret.
// Formatting, logging and encoding it yield "[redacted]"; convert it to string
// to use it.
type Secret string

// String returns "[redacted]".
func (Secret) String() string { return redacted }

// GoString returns "[redacted]".
func (Secret) GoString() string { return redacted }

// LogValue returns "[redacted]".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "[redacted]", so that no encoder shows the value.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// SecretBytes is Secret for bytes. Convert it to []byte to use it.
type SecretBytes []byte

// String returns "[redacted]".
func (SecretBytes) String() string { return redacted }

// GoString returns "[redacted]".
func (SecretBytes) GoString() string { return redacted }

// LogValue returns "[redacted]".
func (SecretBytes) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "[redacted]", so that no encoder shows the value.
func (SecretBytes) MarshalText() ([]byte, error) { return []byte(redacted), nil }
