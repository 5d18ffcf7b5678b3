package resident

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// fileResident returns what the kernel says of the pages of files that the process has
// mapped, in KiB.
func fileResident(t *testing.T) (kib int) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if _, err := fmt.Sscanf(line, "RssFile: %d kB", &kib); err == nil {
			return kib
		}
	}
	t.Fatal("the kernel does not tell RssFile")
	return 0
}

// constants are read from the program's file.
var constants = strings.Repeat("x", 1) + `a constant of the program`

// madvPopulateRead maps all pages of a range; madvise(2), since Linux 5.14.
const madvPopulateRead = 22

func TestTrim(t *testing.T) {
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skipf("there is no /proc: %v", err)
	}
	for _, m := range unwritten(smaps) {
		_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, m.start, m.end-m.start, madvPopulateRead)
	}
	before := fileResident(t)
	data := slices.Repeat([]byte("written"), 1<<16)
	Trim()
	after := fileResident(t)
	t.Logf("pages of files: %d KiB, and %d KiB afterwards", before, after)
	if after >= before {
		t.Errorf("%d KiB of files are resident, %d before", after, before)
	}
	if constants != "xa constant of the program" || string(data[len(data)-7:]) != "written" {
		t.Error("memory was lost")
	}
}

// A page that was ever written to is not the file's.
func TestUnwritten(t *testing.T) {
	const smaps = `00400000-01248000 r-xp 00000000 fe:00 9995145    /usr/bin/program
Size:              14624 kB
Rss:               12960 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd ex mr mw me sd
01248000-0231f000 r--p 00e48000 fe:00 9995145    /usr/bin/program with a space
Anonymous:             0 kB
Swap:                  0 kB
0231f000-02320000 r--p 01f1f000 fe:00 9995145    /usr/bin/program
Anonymous:             4 kB
Swap:                  0 kB
02320000-02321000 r--p 01f20000 fe:00 9995145    /usr/bin/program
Anonymous:             0 kB
Swap:                  4 kB
02321000-02427000 rw-p 01f21000 fe:00 9995145    /usr/bin/program
Anonymous:             0 kB
02427000-02428000 r--s 00000000 fe:00 12345      /var/lib/shared
Anonymous:             0 kB
3d2a98400000-3d2a99000000 r--p 00000000 00:00 0
Anonymous:             0 kB
7fff5d5f0000-7fff5d5f2000 r-xp 00000000 00:00 0  [vdso]
Anonymous:             0 kB
7fff5d5f2000-7fff5d5f3000 r-xp 00000000 00:01 7  /memfd:lockwood-vault (deleted)
Anonymous:             0 kB
`
	want := []mapping{{0x400000, 0x1248000}, {0x1248000, 0x231f000}, {0x7fff5d5f2000, 0x7fff5d5f3000}}
	if got := unwritten([]byte(smaps)); !slices.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
	for _, text := range []string{"", "\n", "x", "r-xp r-xp r-xp r-xp 1", "1-2 r-xp 0 0 1", "2-1 r-xp 0 0 1\nAnonymous: 0 kB"} {
		for _, m := range unwritten([]byte(text)) {
			if m.end <= m.start {
				t.Errorf("%q: %x", text, m)
			}
		}
	}
}
