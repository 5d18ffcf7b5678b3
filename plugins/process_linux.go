package plugins

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// processAttributes puts a plugin into a process group of its own, so that Ctrl-C
// in a terminal does not reach it before the host is done with it, and has the
// kernel kill it when the thread that started it ends: prctl(2), PR_SET_PDEATHSIG.
// That holds for plugins in any language, and after kill -9 of the host.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// waitExited returns when a child of this process has ended, and leaves it to be
// reaped.
func waitExited(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// killGroup kills a process and those of its process group.
func killGroup(pid int) {
	_ = unix.Kill(-pid, unix.SIGKILL)
}

// lockFD takes an exclusive lock on an open file that ends with it, and reports
// whether it was free.
func lockFD(fd uintptr) bool {
	return unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB) == nil
}
