package plugins

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin/runner"

	"github.com/lockwood-kms/lockwood/plugins/isolation"
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
	name     string
	exe      *executable
	base     string // private, for what has to be on disk
	env      []string
	hidden   []string  // files that the process may not read
	writable []string  // and those that it may change
	log      io.Writer // takes what the process writes to standard error

	dir    string   // go-plugin's for the socket, private
	stdin  *os.File // closed by our end, however it comes: what tells the process
	stdout *os.File
	stderr *os.File
	line   handshakeLine
	exited chan struct{} // closed once the process is reaped

	mu     sync.Mutex // held while the process is started
	child  *isolation.Process
	killed bool // before it started, or after
}

// adopt takes over what go-plugin wants the process to be told: it is the
// RunnerFunc of a goplugin.ClientConfig. The socket's directory is the only place
// that every plugin can write to.
func (r *runner) adopt(_ hclog.Logger, cmd *exec.Cmd, dir string) (goplugin.Runner, error) {
	r.env = slices.DeleteFunc(r.env, func(kv string) bool { return strings.HasPrefix(kv, "TMPDIR=") })
	r.env = append(append(r.env, cmd.Env...), "TMPDIR="+dir)
	r.writable = append(r.writable, dir)
	r.dir = dir
	return r, nil
}

// Start starts the process.
func (r *runner) Start(context.Context) error {
	defer r.exe.release()
	if err := r.start(); err != nil {
		r.closePipes()
		return err
	}
	go r.attend()
	go r.copyLog()
	return nil
}

func (r *runner) start() (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.killed {
		return errors.New("starting plugin: it was given up before")
	}
	var ends [3]*os.File
	defer func() {
		for _, f := range ends {
			if f != nil {
				_ = f.Close()
			}
		}
	}()
	if ends[0], r.stdin, err = os.Pipe(); err == nil {
		if r.stdout, ends[1], err = os.Pipe(); err == nil {
			r.stderr, ends[2], err = os.Pipe()
		}
	}
	if err == nil {
		r.child, err = r.execute(ends[:])
	}
	if err != nil {
		return fmt.Errorf("starting plugin: %w", err)
	}
	return nil
}

// execute starts the copy in memory, or the one on disk: where a policy of the system
// does not let a file in memory be executed, it may let one on disk.
func (r *runner) execute(files []*os.File) (*isolation.Process, error) {
	if r.exe.memory != nil {
		child, err := r.isolated("/proc/self/fd/3", append(files, r.exe.memory))
		if err == nil {
			return child, nil
		}
		if err := r.exe.moveToDisk(r.base, err); err != nil {
			return nil, err
		}
	}
	child, err := r.isolated(r.exe.path, files)
	if err != nil {
		return nil, r.exe.cause(err)
	}
	return child, nil
}

func (r *runner) isolated(path string, files []*os.File) (*isolation.Process, error) {
	return isolation.Start(&isolation.Program{
		Path: path, Args: []string{r.name}, Env: r.env, Files: files, Hidden: r.hidden, Writable: r.writable,
	})
}

func (r *runner) closePipes() {
	for _, f := range []*os.File{r.stdin, r.stdout, r.stderr} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// attend waits for the process's end.
func (r *runner) attend() {
	<-r.child.Exited()
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
	return r.child.Err()
}

// Kill ends the process and those it started, at once. It may be called at any
// time.
func (r *runner) Kill(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.killed = true
	if r.child != nil {
		r.child.Kill()
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
	if r.child == nil {
		return ""
	}
	return strconv.Itoa(r.child.PID())
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

// clean removes the copy of the program and the directory of the socket, which
// go-plugin leaves where the process did not start.
func (r *runner) clean() {
	r.exe.close()
	if r.dir != "" {
		_ = os.RemoveAll(r.dir)
	}
}
