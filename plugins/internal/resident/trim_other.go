//go:build !linux

package resident

import "runtime/debug"

// Trim gives back the free part of the heap. It takes some milliseconds. It is safe for
// concurrent use.
func Trim() { debug.FreeOSMemory() }
