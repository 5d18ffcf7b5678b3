package isolation

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Supported reports, as an error, that programs cannot be started here.
func Supported() error { return nil }

// Examine tells what this system offers.
func Examine() Facts {
	return Facts{
		System: runtime.GOOS, Hardened: hardened(), Landlock: landlockVersion(), Namespace: maySeparate(), Adopts: adopts.Load(),
	}
}

// patience is how long the end of a program waits for the end of its orphans, which
// are killed at once.
const patience = 2 * time.Second

// Process is a program that was started. It is safe for concurrent use.
type Process struct {
	process *os.Process
	exited  chan struct{} // closed once it is reaped
	status  error         // after exited

	mu     sync.Mutex // held while it is signalled and reaped
	reaped bool
}

// Start starts a program in a Landlock domain of its own, as far as the kernel has
// Landlock, in a process group of its own, and in a PID namespace of its own where
// this process may make one. Without Landlock it starts as well: Examine tells.
//
// The program ends when this process does, kill -9 included. Once it has ended,
// what is left of its process group is killed, and what it left behind otherwise if
// AdoptOrphans was called.
//
// The error matches fs.ErrPermission if the program cannot be executed.
func Start(p *Program) (*Process, error) {
	child := &Process{exited: make(chan struct{})}
	started := make(chan error, 1)
	onOwnThread(func() {
		err := child.start(p)
		started <- err
		if err == nil {
			child.attend()
		}
	})
	if err := <-started; err != nil {
		return nil, err
	}
	return child, nil
}

// onOwnThread runs f in a goroutine on a thread that nothing else runs on before or
// after: what f does to its thread stays with it. It is not the first thread of the
// process, which never ends, and which stands for the process to others.
//
// Go never makes a thread out of one that is locked, since its children would
// inherit what was done to it: runtime.LockOSThread.
func onOwnThread(f func()) {
	go func() {
		runtime.LockOSThread() // never unlocked below: the thread ends with f
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		taken := make(chan struct{})
		onOwnThread(func() {
			close(taken)
			f()
		})
		<-taken // until then this thread is not free, so that another is taken
		runtime.UnlockOSThread()
	}()
}

// start restricts the thread and starts the program from it: a child inherits what
// its thread is. The thread has to live as long as the child, since the kernel ties
// PR_SET_PDEATHSIG to it: prctl(2).
func (c *Process) start(p *Program) error {
	if err := confine(p); err != nil {
		return err
	}
	family.Lock()
	defer family.Unlock()
	if err := keepDescriptors(); err != nil {
		return err
	}
	var err error
	if c.process, err = spawn(p); err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	family.known[c.process.Pid] = true
	return nil
}

// spawn starts the program in a PID namespace, if that is permitted.
func spawn(p *Program) (*os.Process, error) {
	try := func(flags uintptr) (*os.Process, error) {
		return os.StartProcess(p.Path, p.Args, &os.ProcAttr{Env: p.Env, Files: p.Files, Sys: &syscall.SysProcAttr{
			Setpgid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: flags,
		}})
	}
	if maySeparate() {
		child, err := try(unix.CLONE_NEWPID)
		refused := errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) // by a filter of system calls, or a limit
		if !refused {
			return child, err
		}
	}
	return try(0)
}

// keepDescriptors keeps the descriptors of this process from the programs that it
// starts: those, too, that it inherited itself, such as a key file that a shell
// opened for it. Go closes its own.
func keepDescriptors() error {
	if unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return nil
	}
	open, err := os.ReadDir("/proc/self/fd") // before Linux 5.11
	if err != nil {
		return fmt.Errorf("listing open files: %w", err)
	}
	for _, e := range open {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// attend waits for the child, ends what it left behind, and then frees its entry in
// the process table.
func (c *Process) attend() {
	waitExited(c.process.Pid)
	c.mu.Lock()
	killGroup(c.process.Pid) // not reaped yet, so nobody else has this number
	state, err := family.reap(c.process)
	c.reaped = true
	c.mu.Unlock()
	if err == nil && !state.Success() {
		err = &exec.ExitError{ProcessState: state}
	}
	c.status = err
	if adopts.Load() {
		family.endOrphansFor(patience)
	}
	close(c.exited)
}

// PID returns its process ID, as this process has it.
func (c *Process) PID() int { return c.process.Pid }

// Exited is closed once the program has ended and is reaped.
func (c *Process) Exited() <-chan struct{} { return c.exited }

// Err returns how the program ended, once it has: nil for status 0, and else an
// *exec.ExitError.
func (c *Process) Err() error { return c.status }

// Kill ends the program and its process group, at once. It may be called at any
// time.
func (c *Process) Kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.reaped {
		killGroup(c.process.Pid)
	}
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

// killGroup kills the processes of a process group.
func killGroup(pid int) { _ = unix.Kill(-pid, unix.SIGKILL) }
