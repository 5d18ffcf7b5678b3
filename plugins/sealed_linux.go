package plugins

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// sealed returns img as an executable file in memory that nobody can change any
// more, this process included: memfd_create(2) and fcntl(2), "File Sealing". A
// copy on disk could be exchanged by another process of the same user between the
// check and the start.
func sealed(img *image) (*os.File, error) {
	fd, err := unix.MemfdCreate(img.name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 every one was executable and the flag unknown
		fd, err = unix.MemfdCreate(img.name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("making a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), img.name)
	if _, err = f.Write(img.bytes); err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("sealing a file in memory: %w", err)
	}
	return f, nil
}
