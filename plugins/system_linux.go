package plugins

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// memoryFile returns a new executable file in memory: memfd_create(2). A copy on
// disk could be exchanged by another process of the same user between the check and
// the start.
func memoryFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 every one was executable and the flag unknown
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// seal keeps everybody, this process included, from changing a file in memory:
// fcntl(2), "File Sealing".
func seal(f *os.File) error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	if err != nil {
		return fmt.Errorf("sealing a file in memory: %w", err)
	}
	return nil
}

// executesNothing reports whether programs on the file system of dir are not
// executed: mount(8), noexec.
func executesNothing(dir string) bool {
	var s unix.Statfs_t
	return unix.Statfs(dir, &s) == nil && s.Flags&unix.ST_NOEXEC != 0
}

// lockFD takes an exclusive lock on an open file that ends with it, and reports
// whether it was free.
func lockFD(fd uintptr) bool {
	return unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB) == nil
}
