package plugins

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin/runner"
)

const (
	// drainTime is how long output of a process is still read after its end, for
	// a child of it may hold the pipe open for good.
	drainTime = 200 * time.Millisecond
	// maxHandshakeSize bounds the line with which a plugin announces itself, in
	// bytes: most of it is a certificate.
	maxHandshakeSize = 8 << 10
)

// runner starts and ends one process of a plugin, in go-plugin's form. go-plugin's
// own hands the process our standard input, reaps it only once its pipes are
// closed, and kills nothing that it started in turn.
type runner struct {
	name    string
	image   *image
	env     []string
	log     io.Writer // takes what the process writes to standard error
	spawner *spawner

	dir    string   // go-plugin's for the socket, private
	stdin  *os.File // closed by our end, however it comes: what tells the process
	stdout *os.File
	stderr *os.File
	line   handshakeLine
	exited chan struct{} // closed once the process is reaped
	status error         // of the process; after exited

	mu     sync.Mutex // held while the process is started, signalled and reaped
	cmd    *exec.Cmd
	killed bool // before it started, or after
	reaped bool
}

func newRunner(img *image, env []string, log io.Writer, s *spawner) *runner {
	return &runner{name: img.name, image: img, env: env, log: log, spawner: s, exited: make(chan struct{})}
}

// adopt takes over what go-plugin wants the process to be told: it is the
// RunnerFunc of a goplugin.ClientConfig.
func (r *runner) adopt(_ hclog.Logger, cmd *exec.Cmd, dir string) (goplugin.Runner, error) {
	r.env = append(r.env, cmd.Env...)
	r.dir = dir
	return r, nil
}

// Start starts the process.
func (r *runner) Start(context.Context) error {
	exe, err := r.image.stage(r.dir)
	if err != nil {
		return err
	}
	defer exe.close()
	err = errors.New("starting plugin: the host is closed")
	r.spawner.do(func() { err = r.start(exe) })
	if err != nil {
		r.closePipes()
		return err
	}
	r.image = nil // lets go of its bytes
	go r.reap()
	go r.copyLog()
	return nil
}

// start runs on the spawner's thread.
func (r *runner) start(exe *executable) (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.killed {
		return errors.New("starting plugin: it was given up before")
	}
	var childEnds [3]*os.File
	defer func() {
		for _, f := range childEnds {
			if f != nil {
				_ = f.Close()
			}
		}
	}()
	if childEnds[0], r.stdin, err = os.Pipe(); err != nil {
		return fmt.Errorf("starting plugin: %w", err)
	}
	if r.stdout, childEnds[1], err = os.Pipe(); err != nil {
		return fmt.Errorf("starting plugin: %w", err)
	}
	if r.stderr, childEnds[2], err = os.Pipe(); err != nil {
		return fmt.Errorf("starting plugin: %w", err)
	}
	cmd := &exec.Cmd{
		Path: exe.path, Args: []string{r.name}, Env: r.env, SysProcAttr: processAttributes(),
		Stdin: childEnds[0], Stdout: childEnds[1], Stderr: childEnds[2],
	}
	if exe.file != nil {
		cmd.ExtraFiles = []*os.File{exe.file}
	}
	if err = cmd.Start(); err != nil {
		return fmt.Errorf("starting plugin: %w", err)
	}
	r.cmd = cmd
	return nil
}

func (r *runner) closePipes() {
	for _, f := range []*os.File{r.stdin, r.stdout, r.stderr} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// reap waits for the process, ends what it left behind in its process group, and
// then frees its entry in the process table.
func (r *runner) reap() {
	waitExited(r.cmd.Process.Pid)
	r.mu.Lock()
	killGroup(r.cmd.Process.Pid) // not reaped yet, so nobody else has this number
	r.status = r.cmd.Wait()
	r.reaped = true
	r.mu.Unlock()
	end := time.Now().Add(drainTime)
	_ = r.stdout.SetReadDeadline(end)
	_ = r.stderr.SetReadDeadline(end)
	_ = r.stdin.Close()
	close(r.exited)
}

// copyLog passes on what the process writes to standard error.
func (r *runner) copyLog() {
	_, _ = io.Copy(r.log, r.stderr)
	_ = r.stderr.Close()
}

// Wait returns when the process has ended and is reaped.
func (r *runner) Wait(context.Context) error {
	<-r.exited
	return r.status
}

// Kill ends the process and those it started, at once. It may be called at any
// time.
func (r *runner) Kill(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.killed = true
	if r.cmd != nil && !r.reaped {
		killGroup(r.cmd.Process.Pid)
	}
	return nil
}

// Stdout returns what the process writes to standard output, noting the first
// line.
func (r *runner) Stdout() io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{io.TeeReader(r.stdout, &r.line), r.stdout}
}

// Stderr returns nothing: copyLog reads it.
func (r *runner) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

// Name returns the name of the plugin's file.
func (r *runner) Name() string { return r.name }

// ID returns the process ID.
func (r *runner) ID() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmd == nil {
		return ""
	}
	return strconv.Itoa(r.cmd.Process.Pid)
}

// Diagnose returns nothing: what the process said is in the log.
func (r *runner) Diagnose(context.Context) string { return "" }

// PluginToHost returns the address as it is.
func (r *runner) PluginToHost(network, address string) (string, string, error) {
	if network != "unix" {
		return "", "", errors.New("the plugin listens on the network; it must listen on a unix socket in the directory that PLUGIN_UNIX_SOCKET_DIR names")
	}
	return network, address, nil
}

// HostToPlugin returns the address as it is.
func (r *runner) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

// handshakeLine keeps the first line that is written to it.
type handshakeLine struct {
	mu   sync.Mutex
	text []byte
}

// Write never fails.
func (h *handshakeLine) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if room := maxHandshakeSize - len(h.text); room > 0 {
		h.text = append(h.text, b[:min(len(b), room)]...)
	}
	return len(b), nil
}

// version returns the protocol version that the plugin chose, if it said one.
func (h *handshakeLine) version() (int, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	text, _, _ := strings.Cut(string(h.text), "\n")
	parts := strings.Split(text, "|")
	if len(parts) < 4 {
		return 0, false
	}
	n, err := strconv.Atoi(parts[1])
	return n, err == nil
}

// removeDir removes the directory of the socket; go-plugin leaves it where the
// process did not start.
func (r *runner) removeDir() {
	if r.dir != "" {
		_ = os.RemoveAll(r.dir)
	}
}
