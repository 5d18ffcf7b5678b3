package isolation

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxSweeps bounds how often the children are looked through in one go: whoever is
// killed leaves its own children behind, and may have made more meanwhile.
const maxSweeps = 100

// family is the children of this process: there is one process.
var family = &children{known: make(map[int]bool)}

// children tells those that were started from those that were left behind.
type children struct {
	// The lock is held while a child is started, so that it is not taken for an
	// orphan.
	sync.Mutex
	known map[int]bool // process IDs of those that were started and not reaped

	sweeping sync.Mutex // held by whoever ends orphans
}

// leaveAlone takes children for ones that were started.
func (c *children) leaveAlone(pids []int) {
	c.Lock()
	defer c.Unlock()
	for _, pid := range pids {
		c.known[pid] = true
	}
}

// reap frees the entry of a child that has ended in the process table, and forgets
// the child, in one step: its number may be that of the next one.
func (c *children) reap(child *os.Process) (*os.ProcessState, error) {
	c.Lock()
	defer c.Unlock()
	delete(c.known, child.Pid)
	return child.Wait()
}

// endOrphansFor kills every child that was not started, and waits for their end,
// though not longer than d.
func (c *children) endOrphansFor(d time.Duration) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.endOrphans()
	}()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C: // one that hangs in the kernel dies when it can
	}
}

// endOrphans kills and reaps every child that was not started.
func (c *children) endOrphans() {
	c.sweeping.Lock() // one at a time: a number that was reaped may be a new child's
	defer c.sweeping.Unlock()
	for range maxSweeps {
		orphans := c.killOrphans()
		if len(orphans) == 0 {
			return
		}
		for _, pid := range orphans {
			_, _ = unix.Wait4(pid, nil, unix.WALL, nil)
		}
	}
}

// killOrphans returns those it killed.
func (c *children) killOrphans() (killed []int) {
	c.Lock()
	defer c.Unlock()
	for _, pid := range childrenOf("self") {
		if !c.known[pid] {
			_ = unix.Kill(pid, unix.SIGKILL)
			killed = append(killed, pid)
		}
	}
	return killed
}

// childrenOf returns the children of a process, those of each of its threads:
// proc_tid_children(5). Other ways to list them leave out those that may not be
// looked at, where /proc is mounted with hidepid.
func childrenOf(process string) (pids []int) {
	lists, _ := filepath.Glob(filepath.Join("/proc", process, "task/*/children"))
	for _, list := range lists {
		text, _ := os.ReadFile(list) // the thread may have ended
		for field := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
