// Command lockwood is the credential vault: the service, and what an operator
// needs to run it. It is the only place that knows every other package and wires
// them; no package registers itself anywhere.
package main

import (
	"context"
	"errors"
	"io"
	"log" //nolint:depguard // to silence it
	"os"
	"os/signal"
	"syscall"

	"github.com/lockwood-kms/lockwood/internal/plain"
	"github.com/lockwood-kms/lockwood/plugins/isolation"
)

func main() {
	// First, for every command: keys and secrets come next.
	if err := errors.Join(isolation.Harden(), isolation.AdoptOrphans()); err != nil {
		plain.Fprintf(plain.Text(os.Stderr), "lockwood: the memory of this process is not protected: %v\n", err)
	}
	// Nothing of ours prints there. net/http does, and quotes what a peer sends unasked, which
	// may be a token that the peer was sent.
	log.SetOutput(io.Discard)
	ctx, stop := signal.NotifyContext(context.Background(), endings()...)
	// A second Ctrl-C does not wait for what the first one ended.
	context.AfterFunc(ctx, func() { signal.Reset(os.Interrupt) })
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// endings are the signals that end a command in good order. nohup ignores SIGHUP, and
// it stays so.
func endings() []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}
