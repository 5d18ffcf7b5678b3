package server

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/lockwood-kms/lockwood/bench/measure"
)

// Process is a running server.
type Process struct {
	// Addr is where it is told to listen.
	Addr string
	// Began is when it was started, just before the kernel was asked to.
	Began time.Time

	cmd    *exec.Cmd
	log    string
	exited chan struct{}
}

// Start starts a server in dir, where its log is kept as well: servers write
// logs, and that is part of what they cost. It gets env and an address in
// HTTP_HOST and HTTP_PORT. It is killed when ctx ends.
func Start(ctx context.Context, dir string, env []string, program string, args ...string) (*Process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	host, port, _ := net.SplitHostPort(addr)
	p := &Process{Addr: addr, log: filepath.Join(dir, "log"), exited: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd = exec.CommandContext(ctx, program, args...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, out, out
	p.cmd.Env = append([]string{"HTTP_HOST=" + host, "HTTP_PORT=" + port}, env...)
	p.Began = time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting server: %w", err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// freeAddr returns an address of the loopback interface that nothing listens on.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("finding a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// readyTimeout is how long a server may take to be ready; generous.
const readyTimeout = 30 * time.Second

// Await polls until ready, and fails if the server ends before.
func (p *Process) Await(ready func() bool) error {
	for deadline := p.Began.Add(readyTimeout); !ready(); time.Sleep(time.Millisecond) {
		select {
		case <-p.exited:
			return fmt.Errorf("the server ended:\n%s", p.lastLog())
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the server is not ready after %v:\n%s", readyTimeout, p.lastLog())
		}
	}
	return nil
}

// lastLog returns the end of the log.
func (p *Process) lastLog() string {
	const most = 2000
	text, _ := os.ReadFile(p.log)
	return string(text[max(0, len(text)-most):])
}

// Stop kills the server and waits until it is gone.
func (p *Process) Stop() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// CPU returns the CPU time that the server has used.
func (p *Process) CPU() (time.Duration, error) { return measure.CPUOf(p.cmd.Process.Pid) }

// Resident returns the server's resident memory in bytes.
func (p *Process) Resident() (int64, error) { return residentOf(p.cmd.Process.Pid) }

// PeakOf returns the most memory that a process had resident, in bytes. What the
// kernel reports of a child once it ended is no measure of that: it includes what
// its parent had resident when it started the child.
func PeakOf(pid int) (int64, error) { return memoryOf(pid, "VmHWM:") }

// ResidentWithChildren returns the server's resident memory and that of the
// processes that it started, in bytes.
func (p *Process) ResidentWithChildren() (own, children int64, err error) {
	if own, err = p.Resident(); err != nil {
		return 0, 0, err
	}
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	for _, list := range lists {
		text, _ := os.ReadFile(list) // a thread may have ended
		for field := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				return 0, 0, err
			}
			resident, err := residentOf(pid)
			if err != nil {
				return 0, 0, err
			}
			children += resident
		}
	}
	return own, children, nil
}

func residentOf(pid int) (int64, error) { return memoryOf(pid, "VmRSS:") }

func memoryOf(pid int, figure string) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("reading resident memory: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, figure); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("reading resident memory: the kernel does not say")
}
