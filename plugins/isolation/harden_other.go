//go:build !linux && !darwin

package isolation

// Harden does nothing: this system has no such thing, or none that is used here.
// Examine says so.
func Harden() error { return nil }
