package isolation

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Harden keeps the memory and the environment of this process from other processes
// of the same user, and from core files. It is the first thing that main does:
// executing a program undoes it, so that only a binary that its user cannot read
// (mode 0111) is protected before.
//
// PR_SET_DUMPABLE 0 makes the kernel refuse ptrace(2), and the files environ, mem
// and the like of /proc/PID, to whoever lacks CAP_SYS_PTRACE: prctl(2), and
// "Ptrace access mode checking" in ptrace(2). It also forbids a core dump, be its
// pattern a file or a pipe.
func Harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("making the process non-dumpable: %w", err)
	}
	// For children, and for whoever sets dumpable back.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbidding core files: %w", err)
	}
	return nil
}

func hardened() bool {
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	return err == nil && dumpable == 0
}

// adopts says that AdoptOrphans was called.
var adopts atomic.Bool

// AdoptOrphans says that this process starts no children but by Start: what else
// becomes its child was left behind by a program, and is killed when a program
// ends. Such a process is given to this one by PR_SET_CHILD_SUBREAPER: prctl(2).
// Children that it has already, of a shell that it replaced, are left alone.
func AdoptOrphans() error {
	family.leaveAlone(childrenOf("self"))
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("adopting orphans: %w", err)
	}
	adopts.Store(true)
	return nil
}
