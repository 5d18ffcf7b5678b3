//go:build linux || darwin

package sqlite

import (
	"math"

	"golang.org/x/sys/unix"
)

// room returns how many bytes an ordinary user may still write to the file system of
// the directory.
func room(dir string) (free int64, ok bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, false
	}
	size := int64(s.Bsize) //nolint:unconvert // not of this type on every system
	if s.Bavail > uint64(math.MaxInt64/max(1, size)) {
		return math.MaxInt64, true
	}
	return int64(s.Bavail) * size, true
}
