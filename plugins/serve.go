package plugins

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/plugins/isolation"
)

// shutTimeout is how long a provider may take to close when its process ends.
const shutTimeout = time.Second

// ServeOptions are the optional parts of Serve.
type ServeOptions struct {
	// Version is the plugin's version, at most 64 bytes, for lists and logs.
	Version string
}

// Serve is the main function of a plugin written in Go. It serves the providers
// that open makes for the key URIs of scheme, and does not return: the process
// ends when its host does, closes it, or sends SIGTERM. It ignores SIGINT, since
// Ctrl-C in a terminal reaches the plugin as well, and the host may need it until
// the last request is answered.
//
// The process makes itself non-dumpable and writes no core file, since data keys
// are in its memory. Started by hand, it says what it is and exits with status 1.
func Serve(scheme string, open core.Factory, opts *ServeOptions) {
	if opts == nil {
		opts = &ServeOptions{}
	}
	serve(&server{scheme: scheme, open: open, version: opts.Version}, currentProtocols())
}

func serve(s *server, versions protocols) {
	if os.Getenv(cookieName) != cookieValue { //nolint:forbidigo // go-plugin hands the cookie over in the environment
		introduce(os.Stderr, s.scheme)
		exit(1)
	}
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: os.Stderr, JSONFormat: true})
	if err := isolation.Harden(); err != nil {
		logger.Error("the plugin cannot keep its memory from other processes", "error", err)
		exit(1)
	}
	go endWithHost(s)
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{MagicCookieKey: cookieName, MagicCookieValue: cookieValue},
		VersionedPlugins: versions.pluginSets(s),
		Logger:           logger,
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(maxMessageSize), grpc.MaxSendMsgSize(maxMessageSize))...)
		},
	})
	_ = s.shut()
	exit(0)
}

// endWithHost ends the process when the host does, however it ends: the host
// holds the other end of standard input, and the kernel closes it.
func endWithHost(s *server) {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	gone := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(gone)
	}()
	select {
	case <-term:
	case <-gone:
	}
	shut := make(chan struct{})
	go func() {
		_ = s.shut()
		close(shut)
	}()
	select {
	case <-shut:
	case <-time.After(shutTimeout): // a provider that hangs does not keep the process
	}
	exit(0)
}

func exit(status int) {
	os.Exit(status) //nolint:revive // Serve is the whole of a main function
}

// introduce greets a person who started a plugin by hand.
func introduce(w io.Writer, scheme string) {
	name := FilePrefix + scheme
	fmt.Fprintf(w, `%s is a key provider plugin of Lockwood, for keys named by %s://. It is not
run by hand; Lockwood starts it when such a key is configured. To let it:

  1. put this file (%s) into the directory that FOREST_EXECUTOR_PLUGIN_DIR names;
  2. run: lockwood plugin pin %s
  3. set FOREST_EXECUTOR_KEY_PROVIDER=%s://…
`, name, scheme, filepath.Base(os.Args[0]), name, scheme)
}
