package plugins_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/plugins"
	"github.com/lockwood-kms/lockwood/plugins/plugintest"
)

// TestKilledInTheMiddle kills the process while it unwraps: the call is made once
// more, in the next process, and answered. No zombie is left.
func TestKilledInTheMiddle(t *testing.T) {
	c := newControl(t)
	p := mustOpen(t, newHost(t, []string{"memory"}, nil), c.uri("memory", "one"))
	dk, err := p.GenerateDataKey(t.Context(), testAAD)
	if err != nil {
		t.Fatal(err)
	}
	c.put("fault", "hang-once")
	first := c.pid()
	type result struct {
		key []byte
		err error
	}
	done := make(chan result, 1)
	go func() {
		key, err := p.UnwrapDataKey(t.Context(), dk.Wrapped, testAAD)
		done <- result{key, err}
	}()
	eventually(t, "the plugin unwraps", func() bool { return exists(c.dir + "/hanging") })
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if r := <-done; r.err != nil || string(r.key) != string(dk.Plaintext) {
		t.Fatalf("the interrupted call: %v", r.err)
	}
	if c.pid() == first {
		t.Error("no other process answered")
	}
	eventually(t, "the dead process is reaped", func() bool { return !exists(proc(first, "")) })
}

// TestStoppedProcess stops the process, as a hang that not even its health check
// survives: callers get an outage by their deadline, the process is replaced, and
// the next call is answered.
func TestStoppedProcess(t *testing.T) {
	c := newControl(t)
	opts := &plugintest.Options{Host: plugins.HostOptions{CallTimeout: time.Second, HealthTimeout: time.Second}}
	p := mustOpen(t, newHost(t, []string{"memory"}, opts), c.uri("memory", "one"))
	first := c.pid()
	if err := syscall.Kill(first, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "every thread is stopped", func() bool { return isStopped(t, first) })
	if _, err := p.Status(t.Context()); !errors.Is(err, core.ErrUnavailable) {
		t.Fatalf("a call to a stopped process: %v", err)
	}
	eventually(t, "another process answers", func() bool {
		_, err := p.Status(t.Context())
		return err == nil && c.pid() != first
	})
	eventually(t, "the stopped process is gone", func() bool { return !exists(proc(first, "")) })
}

// isStopped says whether no thread of a process runs: a signal that stops takes its
// time to reach them all.
func isStopped(t *testing.T, pid int) bool {
	t.Helper()
	stats, err := filepath.Glob(proc(pid, "task/*/stat"))
	if err != nil || len(stats) == 0 {
		t.Fatalf("listing the threads of process %d: %v", pid, err)
	}
	return !slices.ContainsFunc(stats, func(stat string) bool {
		b, _ := os.ReadFile(stat)
		_, state, _ := strings.Cut(string(b), ") ") // proc_pid_stat(5)
		return !strings.HasPrefix(state, "T")
	})
}

// TestBreaker has every call hang, while the process as such is well. After a few
// that waited for nothing, callers are refused at once and told when to come back.
func TestBreaker(t *testing.T) {
	c := newControl(t)
	opts := &plugintest.Options{Host: plugins.HostOptions{CallTimeout: 300 * time.Millisecond}}
	p := mustOpen(t, newHost(t, []string{"memory"}, opts), c.uri("memory", "one"))
	eventually(t, "the plugin answers", func() bool {
		_, err := p.Status(t.Context())
		return err == nil
	})
	first := c.pid()
	c.put("fault", "hang")
	eventually(t, "the breaker opens", func() bool {
		_, err := p.Status(t.Context())
		if !errors.Is(err, core.ErrUnavailable) {
			t.Fatalf("a call that hangs: %v", err)
		}
		return core.RetryAfter(err) > 0
	})
	c.put("fault", "")
	eventually(t, "calls are let through again", func() bool {
		_, err := p.Status(t.Context())
		return err == nil
	})
	if c.pid() != first {
		t.Error("a process that answers its health check was replaced because its KMS hangs")
	}
}

// TestBreakerIgnoresCallers asserts that callers who give up are not counted
// against the plugin.
func TestBreakerIgnoresCallers(t *testing.T) {
	c := newControl(t)
	p := mustOpen(t, newHost(t, []string{"memory"}, nil), c.uri("memory", "one"))
	c.put("fault", "hang")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			go cancel()
			if _, err := p.Status(ctx); !errors.Is(err, context.Canceled) || !errors.Is(err, core.ErrUnavailable) {
				t.Errorf("a call that is given up: %v", err)
			}
		})
	}
	wg.Wait()
	c.put("fault", "")
	if _, err := p.Status(t.Context()); err != nil {
		t.Errorf("after callers gave up: %v", err)
	}
}

// TestGarbage has the plugin answer what cannot be.
func TestGarbage(t *testing.T) {
	c := newControl(t)
	p := mustOpen(t, newHost(t, []string{"memory"}, nil), c.uri("memory", "one"))
	dk, err := p.GenerateDataKey(t.Context(), testAAD)
	if err != nil {
		t.Fatal(err)
	}
	c.put("fault", "garbage")
	if got, err := p.GenerateDataKey(t.Context(), testAAD); !errors.Is(err, core.ErrUnavailable) || got.Plaintext != nil {
		t.Errorf("a data key of zeros: %v", err)
	}
	if got, err := p.WrapDataKey(t.Context(), dk.Plaintext, testAAD); !errors.Is(err, core.ErrUnavailable) || got.Wrapped != nil {
		t.Errorf("a wrap that is too long: %v", err)
	}
	if _, err := p.Status(t.Context()); !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("a KEK ID without a key: %v", err)
	}
	if got, err := p.UnwrapDataKey(t.Context(), dk.Wrapped, testAAD); !errors.Is(err, core.ErrInvalidCiphertext) || got != nil {
		t.Errorf("a short data key: %v", err)
	}
}

// TestBadStarts asserts that a plugin that does not start is an outage and not the
// end of the service, whatever it does instead.
func TestBadStarts(t *testing.T) {
	schemes := []string{"crash", "junk", "mute"}
	opts := &plugintest.Options{Host: plugins.HostOptions{StartTimeout: 2 * time.Second}}
	h := newHost(t, schemes, opts)
	for _, scheme := range schemes {
		p := mustOpen(t, h, newControl(t).uri(scheme, "key"))
		_, err := p.Status(t.Context())
		if !errors.Is(err, core.ErrUnavailable) || core.RetryAfter(err) == 0 || !strings.Contains(err.Error(), "not running") {
			t.Errorf("%s: %v, retry after %v", scheme, err, core.RetryAfter(err))
		}
	}
}

// TestHealsAfterBadStart asserts that a plugin that cannot start at first is taken
// up later, without anybody opening it anew.
func TestHealsAfterBadStart(t *testing.T) {
	c := newControl(t)
	t.Setenv("LATE_FILE", c.dir+"/ready")
	opts := &plugintest.Options{
		Host: plugins.HostOptions{StartTimeout: 5 * time.Second, MaxRestartPause: 100 * time.Millisecond}, // enough for a busy machine, too
		Env:  []string{"LATE_FILE"},
	}
	p := mustOpen(t, newHost(t, []string{"late"}, opts), c.uri("late", "one"))
	if _, err := p.Status(t.Context()); !errors.Is(err, core.ErrUnavailable) {
		t.Fatalf("before it starts: %v", err)
	}
	c.put("ready", "")
	eventually(t, "the plugin answers", func() bool {
		_, err := p.Status(t.Context())
		return err == nil
	})
}
