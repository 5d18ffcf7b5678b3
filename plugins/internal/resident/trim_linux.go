package resident

import (
	"bytes"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
)

// Trim gives back the memory that the process has needed so far and does not need now: the
// free part of the heap, and the pages of program files that it cannot write to. It takes
// some milliseconds. It is safe for concurrent use.
func Trim() {
	debug.FreeOSMemory()
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return // there is no /proc, or none that tells
	}
	for _, m := range unwritten(smaps) {
		// The pages leave the process, and are mapped again from the file when they are
		// touched: madvise(2), MADV_DONTNEED. Where the kernel refuses, as with locked
		// pages, they stay.
		_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, m.start, m.end-m.start, syscall.MADV_DONTNEED)
	}
}

// mapping is a range of addresses.
type mapping struct{ start, end uintptr }

// unwritten returns the mappings of files that cannot be written to and have no page that
// ever was: only these can be read from the file again. A linker's relocations and a
// debugger's breakpoints are such pages, though the mapping is read-only afterwards. What
// is in smaps is told by proc_pid_smaps(5).
func unwritten(smaps []byte) (found []mapping) {
	var current *mapping
	for line := range bytes.Lines(smaps) {
		fields := strings.Fields(string(line))
		if len(fields) >= 5 && !strings.HasSuffix(fields[0], ":") {
			if current != nil {
				found = append(found, *current)
			}
			current = fileMapping(fields)
			continue
		}
		if current != nil && len(fields) >= 2 && (fields[0] == "Anonymous:" || fields[0] == "Swap:") && fields[1] != "0" {
			current = nil
		}
	}
	if current != nil {
		found = append(found, *current)
	}
	return found
}

// fileMapping reads the head of a mapping: addresses, permissions, offset, device, inode
// and path. It returns nil unless that is a private one of a file without the right to write.
func fileMapping(fields []string) *mapping {
	permissions, inode := fields[1], fields[4]
	if permissions != "r-xp" && permissions != "r--p" || inode == "0" {
		return nil
	}
	from, to, _ := strings.Cut(fields[0], "-")
	start, err := strconv.ParseUint(from, 16, strconv.IntSize)
	if err != nil {
		return nil
	}
	end, err := strconv.ParseUint(to, 16, strconv.IntSize)
	if err != nil || end <= start {
		return nil
	}
	return &mapping{uintptr(start), uintptr(end)}
}
