package isolation

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Harden keeps debuggers from this process, and its memory out of core files. It
// is the first thing that main does.
func Harden() error {
	if err := unix.PtraceDenyAttach(); err != nil {
		return fmt.Errorf("refusing debuggers: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbidding core files: %w", err)
	}
	return nil
}
