//go:build !linux && !darwin

package sqlite

// room is not known here.
func room(string) (free int64, ok bool) { return 0, false }
