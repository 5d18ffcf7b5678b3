package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

const (
	swapUsers     = 40 // each with swapServers credentials
	swapServers   = 5
	swapInstances = 2
)

// swapStep is a configuration that all instances move to.
type swapStep struct {
	name string
	uri  string // FOREST_EXECUTOR_KEY_PROVIDER
	// calls returns the cryptographic calls that the KMS has answered; nil where
	// nobody counts.
	calls func() int
}

// TestSwapStory moves a store from the env key through the services and back, while
// two instances serve deposits and disconnects. They are restarted one after the
// other, so that at every step both configurations run side by side.
func TestSwapStory(t *testing.T) {
	t.Parallel()
	d := postgresDatabase(t, pgtest.Shared(t))
	plugins := pluginsEnv(t)
	steps, env := swapSteps(t)
	base := append(append(d.env, plugins...), env...)

	const first = "envkey://FOREST_EXECUTOR_ENCRYPTION_KEY"
	f := newInstances(t, func() []string { return base })
	stream := newStream(f)
	previous, last := first, base
	for _, step := range steps {
		last = append(append([]string{}, base...), "FOREST_EXECUTOR_KEY_PROVIDER="+step.uri, "FOREST_EXECUTOR_PREVIOUS_KEY_PROVIDERS="+previous)
		before := step.count()
		for i := range swapInstances {
			f.restart(t, i, last)
			stream.pass(t, 100) // deposits and disconnects while both kinds run
		}
		// The first to start wraps under the new KEK and unwraps what it wrapped;
		// the second unwraps once.
		if step.calls != nil && step.count()-before != 6 {
			t.Errorf("%s: %d cryptographic calls for the swap, want 6: wrap, the unwrap that confirms it, two forgeries, the unwrap that verifies it, and the other instance's unwrap", step.name, step.count()-before)
		}
		after := step.count()
		stream.check(t, last)
		if report := verify(t, last, exitOK); len(report.Failed) != 0 || report.OK != report.Records {
			t.Errorf("%s: %+v", step.name, report)
		}
		// Two commands and a Go caller loaded the ring; records cost nothing.
		if step.calls != nil && step.count()-after > 2 {
			t.Errorf("%s: %d cryptographic calls to read everything twice, want one for each process", step.name, step.count()-after)
		}
		previous = step.uri
	}
	stream.stop(t)
	stream.check(t, last)
}

func (s *swapStep) count() int {
	if s.calls == nil {
		return 0
	}
	return s.calls()
}

// swapSteps returns the way of the story and the environment that it needs.
func swapSteps(t *testing.T) (steps []swapStep, env []string) {
	server, _, uri, aws := awsKey(t)
	steps = append(steps, swapStep{"AWS KMS", uri, func() int {
		n := server.Calls()
		return n["GenerateDataKey"] + n["Encrypt"] + n["Decrypt"]
	}})
	if uri, ok := vaultKey(t); ok {
		steps = append(steps, swapStep{"Vault", uri, nil})
	}
	cloud, uri := gcpKey(t)
	return append(steps,
		swapStep{"Cloud KMS", uri, func() int { return cloud.Calls("Encrypt") + cloud.Calls("Decrypt") }},
		swapStep{"env key", "envkey://FOREST_EXECUTOR_ENCRYPTION_KEY", nil},
	), aws
}

// liveInstances are services on one store. A request holds its instance, so that a
// restart interrupts nobody but whom it makes wait.
type liveInstances struct {
	slots [swapInstances]struct {
		sync.RWMutex
		s *server
	}
}

func newInstances(t *testing.T, env func() []string) *liveInstances {
	f := &liveInstances{}
	for i := range f.slots {
		f.slots[i].s = serve(t, append(env(), "DRAIN_GRACE=0s")).ready(t)
	}
	return f
}

// restart stops instance i as an operator does, and starts it with env.
func (f *liveInstances) restart(t *testing.T, i int, env []string) {
	slot := &f.slots[i]
	slot.Lock()
	defer slot.Unlock()
	if err := slot.s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-slot.s.exited
	if code := slot.s.cmd.ProcessState.ExitCode(); code != exitOK {
		t.Fatalf("a drained instance exits with %d\n%s", code, slot.s.log)
	}
	slot.s = serve(t, append(append([]string{}, env...), "DRAIN_GRACE=0s")).ready(t)
	pgtest.Eventually(t, "the instance seals", func() bool {
		return slot.s.deposit(t, 1_000_000+int64(i), "first", "first").status == http.StatusOK
	})
}

// stream is what the users do all the while. Each user is one goroutine's, so that
// what a credential has to hold is known.
type stream struct {
	f     *liveInstances
	mu    sync.Mutex
	want  map[string]string // refresh token by user and server
	done  atomic.Int64
	wrong atomic.Pointer[string]
	end   chan struct{}
	wg    sync.WaitGroup
}

func swapKey(user int64, server string) string { return fmt.Sprint(user, " ", server) }

// newStream deposits every credential once and goes on in the background.
func newStream(f *liveInstances) *stream {
	return &stream{f: f, want: map[string]string{}, end: make(chan struct{})}
}

func (s *stream) start(t *testing.T) {
	const workers = 4
	for w := range workers {
		s.wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-s.end:
					return
				default:
				}
				for user := int64(w + 1); user <= swapUsers; user += workers {
					s.step(t, user, fmt.Sprintf("server-%d", n%swapServers), n)
				}
			}
		})
	}
}

// step deposits, or in one of eight cases disconnects.
func (s *stream) step(t *testing.T, user int64, name string, n int) {
	slot := &s.f.slots[rand.IntN(swapInstances)]
	slot.RLock()
	defer slot.RUnlock()
	disconnect := n >= swapServers && rand.IntN(8) == 0
	token := fmt.Sprintf("token-%d-%s-%d", user, name, n)
	want, request := http.StatusOK, func() answer { return slot.s.deposit(t, user, name, token) }
	if disconnect {
		want, request = http.StatusNoContent, func() answer { return slot.s.call(t, user, "DELETE", "/mcp-oauth-credentials/"+name, "") }
	}
	got := request()
	if got.status != want {
		text := fmt.Sprintf("user %d, %s: %d %s, want %d", user, name, got.status, got.body, want)
		s.wrong.Store(&text)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.want, swapKey(user, name)); !disconnect {
		s.want[swapKey(user, name)] = token
	}
	s.done.Add(1)
}

// pass waits until n more requests have been answered.
func (s *stream) pass(t *testing.T, n int64) {
	t.Helper()
	if s.done.Load() == 0 {
		s.start(t)
		n += swapUsers * swapServers
	}
	until := s.done.Load() + n
	pgtest.Eventually(t, "requests are answered", func() bool { return s.done.Load() >= until })
	s.fine(t)
}

func (s *stream) fine(t *testing.T) {
	t.Helper()
	if wrong := s.wrong.Load(); wrong != nil {
		t.Fatalf("a request failed: %s", *wrong)
	}
}

func (s *stream) stop(t *testing.T) {
	t.Helper()
	close(s.end)
	s.wg.Wait()
	s.fine(t)
}

// check opens every credential and compares it with what was last deposited.
func (s *stream) check(t *testing.T, env []string) {
	t.Helper()
	for i := range s.f.slots { // nobody writes meanwhile
		s.f.slots[i].Lock()
		defer s.f.slots[i].Unlock()
	}
	s.mu.Lock()
	want := maps.Clone(s.want)
	s.mu.Unlock()
	v := openVault(t, env)
	defer v.close()
	for user := int64(1); user <= swapUsers; user++ {
		for n := range swapServers {
			name := fmt.Sprintf("server-%d", n)
			token, deposited := want[swapKey(user, name)]
			c, err := v.credentials.Open(t.Context(), user, name)
			switch {
			case deposited && err != nil:
				t.Errorf("user %d, %s does not open: %v", user, name, err)
			case deposited && string(c.RefreshToken) != token:
				t.Errorf("user %d, %s holds another token than the last one deposited", user, name)
			case !deposited && err == nil:
				t.Errorf("user %d, %s is there again", user, name)
			}
		}
	}
}
