package plugins

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// harden keeps the memory of this process from others of the same user, and from
// core files. PR_SET_DUMPABLE 0 makes the kernel refuse ptrace and the files
// environ and mem of /proc/PID to whoever lacks CAP_SYS_PTRACE: prctl(2),
// PR_SET_DUMPABLE, and ptrace(2), "Ptrace access mode checking".
func harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("making the process non-dumpable: %w", err)
	}
	// A core pattern that is a pipe ignores the limit on its size, but not
	// PR_SET_DUMPABLE; the limit is for whoever sets that back.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbidding core files: %w", err)
	}
	return nil
}
