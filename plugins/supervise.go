package plugins

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/lockwood-kms/lockwood/plugins/internal/resident"
)

// settled is how long a process has to live for its end to count as the first.
const settled = time.Minute

// supervise keeps a process running until the provider is closed. proc is the
// first one, or failed why there is none.
func (p *provider) supervise(proc *process, failed error) {
	defer close(p.done)
	pauses := &backoff.ExponentialBackOff{
		InitialInterval: p.host.opts.RestartPause, MaxInterval: p.host.opts.MaxRestartPause,
		Multiplier: 2, RandomizationFactor: 0.5,
	}
	pauses.Reset()
	for {
		for proc == nil {
			if !p.pause(pauses.NextBackOff(), failed) {
				return
			}
			if proc, failed = p.host.start(p.ctx, p.launch); failed != nil && p.ctx.Err() == nil {
				p.log.Error("plugin did not start; it is tried again", "error", failed)
			}
		}
		p.publish(proc, time.Time{}, nil)
		p.log.Info("plugin process started", "pid", proc.runner.ID(), "version", proc.about.version, "protocol", proc.version)
		resident.TrimSoon() // reading the program and the handshake with it are over
		began := time.Now()
		reason := p.watch(proc)
		p.publish(nil, time.Time{}, nil)
		close(proc.gone)
		proc.stop(reason == nil)
		if reason == nil {
			return
		}
		p.log.Warn("plugin process replaced", "reason", reason, "after", time.Since(began).Round(time.Millisecond))
		if time.Since(began) > settled {
			pauses.Reset()
		}
		proc, failed = nil, nil
	}
}

// publish makes the state visible to callers.
func (p *provider) publish(proc *process, next time.Time, failed error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.proc, p.next, p.failed = proc, next, failed
	close(p.changed)
	p.changed = make(chan struct{})
}

// pause waits before a start. It returns false once the provider is closed.
func (p *provider) pause(d time.Duration, failed error) bool {
	p.publish(nil, time.Now().Add(d), failed)
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.ctx.Done():
		return false
	}
}

// watch returns why the process has to be replaced, or nil once the provider is
// closed.
func (p *provider) watch(proc *process) error {
	interval := p.host.opts.HealthInterval
	for {
		timer := time.NewTimer(interval - interval/10 + rand.N(interval/5+1)) //nolint:gosec // jitter spreads calls; nobody gains by guessing it
		select {
		case <-p.ctx.Done():
			timer.Stop()
			return nil
		case <-proc.runner.exited:
			timer.Stop()
			return p.ended(proc)
		case doubted := <-p.doubts:
			timer.Stop()
			if doubted != proc {
				continue // it is gone already
			}
		case <-timer.C:
		}
		if err := p.examine(proc); err != nil && p.ctx.Err() == nil {
			return err
		}
	}
}

// examine asks a process how it is.
func (p *provider) examine(proc *process) error {
	err := proc.healthy(p.ctx)
	if err == nil {
		return nil
	}
	if proc.hasExited() {
		return p.ended(proc)
	}
	return fmt.Errorf("it does not answer: %w", err)
}

func (p *process) hasExited() bool {
	select {
	case <-p.runner.exited:
		return true
	default:
		return false
	}
}

func (p *provider) ended(proc *process) error {
	if status := proc.runner.child.Err(); status != nil {
		return fmt.Errorf("it ended: %w", status)
	}
	return errors.New("it ended")
}
