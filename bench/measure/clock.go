package measure

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// A Clock tells a time since some fixed moment.
type Clock func() time.Duration

var start = time.Now()

// Wall is the time on the wall.
func Wall() time.Duration { return time.Since(start) }

// CPU is the CPU time, user and system, that all threads of this process have
// used.
func CPU() time.Duration {
	t, err := CPUOf(0)
	if err != nil {
		panic(err) // one's own clock is always there
	}
	return t
}

// CPUOf is CPU for another process; zero is this one. The kernel counts in
// nanoseconds, where /proc has ticks of 10 ms. It fails if there is no such
// process.
func CPUOf(pid int) (time.Duration, error) {
	const cpuClockSched = 2 // the clock that clock_getcpuclockid(3) would return
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|cpuClockSched), &ts); err != nil {
		return 0, fmt.Errorf("reading the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}
