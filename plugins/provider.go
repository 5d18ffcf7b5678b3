package plugins

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/lockwood-kms/lockwood/core"
)

// giveUpTime is how long a call that was cut off waits to learn whether its
// process is gone, and may be made again.
const giveUpTime = 2 * time.Second

// provider is a core.KeyProvider in another process, whichever process that is at
// the moment: supervise replaces it.
type provider struct {
	host   *Host
	launch launch
	log    *slog.Logger

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	done   chan struct{} // closed when supervise has returned
	doubts chan *process // asks supervise to look at a process

	mu      sync.Mutex
	proc    *process      // nil while there is none
	changed chan struct{} // closed when one of the following changes
	next    time.Time     // of the next start, while there is no process
	failed  error         // why the last start failed; nil if it did not
}

func newProvider(h *Host, l launch) *provider {
	ctx, cancel := context.WithCancel(context.Background())
	return &provider{
		host: h, launch: l, log: h.opts.Logger.With("plugin", l.name),
		ctx: ctx, cancel: cancel, done: make(chan struct{}),
		doubts: make(chan *process, 1), changed: make(chan struct{}),
	}
}

// WrapDataKey implements core.Wrapper.
func (p *provider) WrapDataKey(ctx context.Context, dataKey []byte, aad core.AAD) (core.WrappedKey, error) {
	return call(ctx, p, "wrapping data key", func(ctx context.Context, r remote) (core.WrappedKey, error) {
		return r.wrap(ctx, dataKey, aad)
	})
}

// GenerateDataKey implements core.KeyProvider. Made twice after an interruption it
// yields another data key; the first reached nobody.
func (p *provider) GenerateDataKey(ctx context.Context, aad core.AAD) (core.DataKey, error) {
	return call(ctx, p, "generating data key", func(ctx context.Context, r remote) (core.DataKey, error) {
		return r.generate(ctx, aad)
	})
}

// UnwrapDataKey implements core.KeyProvider.
func (p *provider) UnwrapDataKey(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
	return call(ctx, p, "unwrapping data key", func(ctx context.Context, r remote) ([]byte, error) {
		return r.unwrap(ctx, w, aad)
	})
}

// Status implements core.KeyProvider.
func (p *provider) Status(ctx context.Context) (core.Status, error) {
	return call(ctx, p, "asking for key status", func(ctx context.Context, r remote) (core.Status, error) {
		return r.status(ctx)
	})
}

// Close ends the process. It returns when the process is gone.
func (p *provider) Close() error {
	p.cancel()
	<-p.done
	p.host.forget(p)
	return nil
}

// call makes a call, and once more if its process was lost in the middle of it.
// Every method may be repeated: none changes anything but what it returns.
func call[T any](ctx context.Context, p *provider, doing string, f func(context.Context, remote) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, p.host.opts.CallTimeout)
	defer cancel()
	v, lost, err := attempt(ctx, p, f)
	if lost {
		p.log.Info("call interrupted; it is made once more", "call", doing)
		v, _, err = attempt(ctx, p, f)
	}
	if err == nil {
		return v, nil
	}
	var none T
	if errors.Is(err, errConfiguration) { // no answer to a call
		err = nonsense(err)
	}
	return none, fmt.Errorf("%s through plugin %s: %w", doing, p.launch.name, err)
}

// attempt makes a call. lost says that its process is gone.
func attempt[T any](ctx context.Context, p *provider, f func(context.Context, remote) (T, error)) (v T, lost bool, err error) {
	proc, err := p.acquire(ctx)
	if err != nil {
		return v, false, err
	}
	_, err = proc.do(func() (any, error) {
		var err error
		v, err = f(ctx, proc.remote)
		return nil, err
	})
	s, silent := errors.AsType[*silence](err)
	if !silent || errors.Is(err, context.Canceled) {
		return v, false, err
	}
	select {
	case p.doubts <- proc:
	default: // it is being looked at
	}
	return v, s.interrupted && proc.lost(ctx), err
}

// lost reports whether the process is given up before ctx, or patience, ends.
func (p *process) lost(ctx context.Context) bool {
	timer := time.NewTimer(giveUpTime)
	defer timer.Stop()
	select {
	case <-p.gone:
		return true
	case <-ctx.Done():
	case <-timer.C:
	}
	return false
}

// acquire returns the process. While one is being started after another was lost,
// it waits; if that does not succeed it does not.
func (p *provider) acquire(ctx context.Context) (*process, error) {
	for {
		if err := p.usable(ctx); err != nil {
			return nil, err
		}
		p.mu.Lock()
		proc, changed, next, failed := p.proc, p.changed, p.next, p.failed
		p.mu.Unlock()
		if proc != nil {
			return proc, nil
		}
		if pause := time.Until(next); failed != nil || pause > giveUpTime {
			return nil, notRunning(failed, pause)
		}
		select {
		case <-changed:
		case <-ctx.Done():
		case <-p.ctx.Done():
		}
	}
}

// usable reports, as an error, that the provider is closed or the caller gone.
func (p *provider) usable(ctx context.Context) error {
	if p.ctx.Err() != nil {
		return &silence{err: errors.New("the provider is closed")}
	}
	if ctx.Err() != nil {
		return &silence{err: fmt.Errorf("the call was given up: %w", ctx.Err()), ctx: ctx.Err()}
	}
	return nil
}

// notRunning is the error of a call while there is no process.
func notRunning(failed error, pause time.Duration) error {
	cause := "it ended again and again"
	if failed != nil {
		cause = failed.Error()
	}
	return &core.RetryAfterError{
		After: max(pause, time.Second).Round(time.Second),
		Err:   &silence{err: fmt.Errorf("the plugin is not running: %s", cause)},
	}
}
