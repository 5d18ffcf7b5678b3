//go:build unix

package plugins

import (
	"io/fs"
	"os"
	"syscall"
)

// openNoFollow are the flags that open a file for reading, unless the path is that
// of a symbolic link, and without waiting for the other end of a pipe.
const openNoFollow = os.O_RDONLY | syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// errLink is what opening a symbolic link with openNoFollow fails with.
const errLink = syscall.ELOOP

// ownerOf returns the user ID of a file's owner.
func ownerOf(info fs.FileInfo) (uid int, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Uid), true
}
