//go:build unix

package main

import (
	"os/signal"
	"syscall"
)

// failWritesAtLimits makes a limit on the size of files fail a write, as a full disk
// does, instead of ending the process.
func failWritesAtLimits() { signal.Ignore(syscall.SIGXFSZ) }
