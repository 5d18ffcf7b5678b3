package plugins

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/sony/gobreaker/v2"
	"google.golang.org/grpc"

	"github.com/lockwood-kms/lockwood/core"
)

const (
	// breakerFailures is how many calls in a row may stay without an answer before
	// the next ones are refused at once, and breakerPause for how long: callers
	// are not held up one by one by a plugin that hangs.
	breakerFailures = 5
	breakerPause    = 5 * time.Second
)

// process is one process of a plugin, started and configured.
type process struct {
	client  *goplugin.Client
	runner  *runner
	remote  remote
	about   health
	version int // of the protocol
	opts    *HostOptions
	breaker *gobreaker.CircuitBreaker[any]
	// gone is closed when the process is given up.
	gone chan struct{}
}

// start starts a process and configures it, within StartTimeout. An error that
// matches errConfiguration stays until the operator changes something.
func (h *Host) start(ctx context.Context, l launch) (*process, error) {
	dir, err := h.prepare()
	if err != nil {
		return nil, err
	}
	exe, allowed, err := l.load(dir)
	if err != nil {
		return nil, &answer{text: err.Error(), sentinel: errConfiguration}
	}
	ctx, cancel := context.WithTimeout(ctx, h.opts.StartTimeout)
	defer cancel()
	p := h.newProcess(l, exe, allowed, dir)
	err = p.connect(ctx)
	if err == nil {
		err = p.introduce(ctx, l)
	}
	if err != nil {
		p.stop(false)
		return nil, fmt.Errorf("starting plugin %s: %w", l.name, err)
	}
	return p, nil
}

func (h *Host) newProcess(l launch, exe *executable, allowed permissions, dir string) *process {
	log := h.opts.Logger.With("plugin", l.name)
	words := newLogWriter(log, l.log, slog.LevelError)
	r := &runner{
		name: exe.name, exe: exe, base: dir, env: permitted(h.opts.Environ, allowed.env), log: words, exited: make(chan struct{}),
		hidden:   h.opts.hiddenFrom(l),
		writable: slices.Concat(allowed.writable, caches(l.scheme, h.opts.Environ, allowed.env)),
	}
	p := &process{runner: r, opts: &h.opts, gone: make(chan struct{})}
	p.breaker = gobreaker.NewCircuitBreaker[any](gobreaker.Settings{
		Name: l.name, Timeout: breakerPause,
		ReadyToTrip:  func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= breakerFailures },
		IsSuccessful: func(err error) bool { return !isSilence(err) },
		IsExcluded:   func(err error) bool { return errors.Is(err, context.Canceled) },
	})
	p.client = goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{MagicCookieKey: cookieName, MagicCookieValue: cookieValue},
		VersionedPlugins: h.opts.versions.pluginSets(nil),
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		RunnerFunc:       r.adopt,
		StartTimeout:     h.opts.StartTimeout,
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: dir},
		SyncStdout:       words,
		SyncStderr:       words,
		// go-plugin's own words are for whoever debugs it.
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, JSONFormat: true, Output: newLogWriter(log, l.log, slog.LevelDebug)}),
		GRPCDialOptions: []grpc.DialOption{
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageSize), grpc.MaxCallSendMsgSize(maxMessageSize)),
			grpc.WithDisableRetry(), // what is repeated, and when, is decided here
			grpc.WithDisableServiceConfig(),
		},
	})
	return p
}

// connect starts the process and reads its announcement. go-plugin's own calls
// have no deadline, so the process is killed when ctx ends, which ends them.
func (p *process) connect(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- p.dial() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		_ = p.runner.Kill(ctx)
		<-done //nolint:errcheck // it says that the process was killed
		return &silence{err: fmt.Errorf("the plugin said nothing for %v: %w", p.opts.StartTimeout, ctx.Err())}
	}
}

func (p *process) dial() error {
	if _, err := p.client.Start(); err != nil {
		if errors.Is(err, errConfiguration) {
			return err
		}
		if v, ok := p.runner.line.version(); ok && !slices.Contains(p.opts.versions.numbers(), v) {
			return fmt.Errorf("%w: it speaks version %d of the protocol at the lowest, this Lockwood %v; install releases that have one in common", errConfiguration, v, p.opts.versions.numbers())
		}
		return &silence{err: fmt.Errorf("the plugin did not announce itself (%s)", cut(err.Error(), 512))}
	}
	rpc, err := p.client.Client()
	if err != nil {
		return &silence{err: fmt.Errorf("connecting to the plugin: %w", err)}
	}
	raw, err := rpc.Dispense(serviceName)
	if err != nil {
		return &silence{err: fmt.Errorf("connecting to the plugin: %w", err)}
	}
	p.remote = raw.(remote) // protocol.GRPCClient returns nothing else
	p.version = p.client.NegotiatedVersion()
	return nil
}

// introduce asks the process what it is and hands it its key.
func (p *process) introduce(ctx context.Context, l launch) error {
	about, err := p.remote.health(ctx)
	if err != nil {
		return err
	}
	if about.scheme != l.scheme {
		return fmt.Errorf("%w: the file is a plugin for %s:// keys; name it %s", errConfiguration, about.scheme, FilePrefix+about.scheme)
	}
	p.about = about
	if l.uri == "" {
		return nil
	}
	return p.remote.configure(ctx, l.uri)
}

// do makes one call, unless too many before it stayed without an answer.
func (p *process) do(f func() (any, error)) (any, error) {
	v, err := p.breaker.Execute(f)
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		err = &core.RetryAfterError{After: breakerPause, Err: fmt.Errorf("the plugin left %d calls in a row without an answer: %w", breakerFailures, core.ErrUnavailable)}
	}
	return v, err
}

// healthy reports, as an error, that the process has to be replaced.
func (p *process) healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.opts.HealthTimeout)
	defer cancel()
	_, err := p.remote.health(ctx)
	return err
}

// stop ends the process, with time to end by itself if it is still of use, and
// removes what belonged to it. It returns when the process is reaped.
func (p *process) stop(graceful bool) {
	ctx, cancel := context.WithTimeout(context.Background(), p.opts.StopTimeout)
	defer cancel()
	if graceful {
		_ = p.remote.close(ctx)
		_ = p.runner.stdin.Close()
		select {
		case <-p.runner.exited:
		case <-ctx.Done():
		}
	}
	_ = p.runner.Kill(ctx)
	p.client.Kill() // the process is dead: this closes the connection and waits
	p.runner.clean()
}

func isSilence(err error) bool {
	_, ok := errors.AsType[*silence](err)
	return ok
}
