package hostile

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/time/rate"
)

// Command is the argument that makes the bench program be the hostile clients.
// Behind it stand the number of the form and the address.
const Command = "hostile-clients"

// TokenVariable holds the token of the clients, or nothing.
const TokenVariable = "BENCH_TOKEN"

const (
	connections = 400
	perSecond   = 500 // requests, over all connections
)

// Main is the process of the hostile clients. It goes on until it is killed, or
// its standard input ends.
func Main(ctx context.Context, args []string) error {
	var number int
	if _, err := fmt.Sscan(args[0], &number); err != nil {
		return fmt.Errorf("reading the number of the form: %w", err)
	}
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, 19); err != nil {
		return fmt.Errorf("taking the lowest priority: %w", err)
	}
	all, err := forms(os.Getenv(TokenVariable))
	if err != nil {
		return err
	}
	a := &attack{form: all[number], addr: args[1], limiter: rate.NewLimiter(perSecond, perSecond)}
	for range connections {
		go a.run(ctx)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return nil
}

// attack is one form, on all connections.
type attack struct {
	form    form
	addr    string
	limiter *rate.Limiter
}

// run goes through the form, again and again.
func (a *attack) run(ctx context.Context) {
	for a.limiter.WaitN(ctx, max(1, a.form.requests)) == nil {
		conn, err := net.Dial("tcp", a.addr)
		if err != nil {
			continue
		}
		a.once(ctx, conn)
		_ = conn.Close()
	}
}

func (a *attack) once(ctx context.Context, conn net.Conn) {
	if a.form.hold == 0 {
		// The answer is read, so that the next request comes when this one is done.
		defer func() {
			_ = conn.SetReadDeadline(time.Now().Add(time.Second))
			_, _ = io.Copy(io.Discard, conn)
		}()
	}
	for _, part := range a.form.parts {
		if _, err := io.WriteString(conn, part); err != nil {
			return
		}
		if !sleep(ctx, a.form.pause) {
			return
		}
	}
	if a.form.hold > 0 {
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			awaitClose(conn)
		}()
		select {
		case <-closed:
		case <-time.After(a.form.hold):
		case <-ctx.Done():
		}
	}
}

// awaitClose waits until the server closes conn, and reads nothing of what it sends
// beyond what the kernel takes.
func awaitClose(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	for {
		var info [1]byte
		gone := false
		err := raw.Read(func(fd uintptr) bool {
			n, _, err := syscall.Recvfrom(int(fd), info[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
			gone = n == 0 && err == nil || err != nil && err != syscall.EAGAIN
			return true
		})
		if err != nil || gone {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
