package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/awstest"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/rotation"
)

// The chaos test rotates a store under use while processes are killed. The short
// form runs with every go test; the long one, env key → new env key → Vault → AWS
// KMS → env key on PostgreSQL with three instances and on SQLite with one, with the
// database restarted and the KMS away for a while, by
//
//	LOCKWOOD_TEST_LONG=1 go test ./cmd/lockwood -run TestChaos -timeout 60m -v
//
// The seed of a run is logged; LOCKWOOD_TEST_SEED=N repeats its choices.
func TestChaos(t *testing.T) {
	t.Parallel()
	long := os.Getenv("LOCKWOOD_TEST_LONG") != ""
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		c := newChaos(t, postgresDatabase(t, pgtest.Start(t, nil)), 3)
		c.run(t, c.steps(t, long))
	})
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		c := newChaos(t, sqliteDatabase(t), 1)
		c.run(t, c.steps(t, long))
	})
}

// chaos is a store, the instances on it, and what their users were told.
type chaos struct {
	d    *testDatabase
	base []string // configuration but for the keys

	mu      sync.Mutex // guards what follows
	rnd     *rand.Rand
	slots   []*slot
	command *exec.Cmd // the rotation that runs, or nil
	want    map[string]outcomes

	answered, doubtful, kills atomic.Int64
	end                       chan struct{}
	all                       sync.WaitGroup
}

// slot is the place of an instance, which is killed and started again.
type slot struct {
	mu  sync.Mutex // held while the instance is exchanged
	s   atomic.Pointer[server]
	env []string
}

// outcomes are the tokens that a credential may hold, "" for none: more than one
// where a request got no answer.
type outcomes []string

const (
	chaosUsers   = 24
	chaosServers = 8
)

func newChaos(t *testing.T, d *testDatabase, instances int) *chaos {
	seed := rand.Uint64()
	if text := os.Getenv("LOCKWOOD_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("LOCKWOOD_TEST_SEED=%d", seed)
	c := &chaos{d: d, rnd: rand.New(rand.NewPCG(seed, 0)), want: map[string]outcomes{}, end: make(chan struct{})}
	c.base = append(d.with("FOREST_EXECUTOR_ENCRYPTION_KEY"), "DRAIN_GRACE=0s")
	for range instances {
		c.slots = append(c.slots, &slot{})
	}
	return c
}

func (c *chaos) intN(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rnd.IntN(n)
}

// chaosStep is a configuration to move to.
type chaosStep struct {
	name string
	keys []string // the variables of the new key alone
	with []string // what says that the key before is a previous one
	// trouble is what goes wrong besides; it may be nil.
	trouble func(t *testing.T)
}

// steps returns the way; the store begins under the test key.
func (c *chaos) steps(t *testing.T, long bool) []chaosStep {
	const env = "FOREST_EXECUTOR_ENCRYPTION_KEY="
	steps := []chaosStep{{name: "new env key", keys: []string{env + otherKey}, with: []string{"FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS=" + testKey}}}
	if !long {
		return steps
	}
	if c.d.pg != nil {
		steps[0].trouble = func(t *testing.T) { c.d.pg.Restart(t) }
	}
	c.base = append(c.base, pluginsEnv(t)...)
	before := []string{env + otherKey}
	if uri, ok := vaultKey(t); ok {
		keys := []string{"FOREST_EXECUTOR_KEY_PROVIDER=" + uri}
		steps = append(steps, chaosStep{name: "Vault", keys: keys, with: before})
		before = []string{"FOREST_EXECUTOR_PREVIOUS_KEY_PROVIDERS=" + uri}
	}
	kms, _, uri, aws := awsKey(t)
	c.base = append(c.base, aws...)
	steps = append(steps, chaosStep{name: "AWS KMS", keys: []string{"FOREST_EXECUTOR_KEY_PROVIDER=" + uri}, with: before, trouble: func(t *testing.T) {
		restore := kms.Fail("*", awstest.Fault{Status: http.StatusInternalServerError, Code: "KMSInternalException"})
		pgtest.Eventually(t, "the KMS was away for a while", after(4*time.Second))
		restore()
	}})
	return append(steps, chaosStep{name: "env key again", keys: []string{env + testKey}, with: []string{"FOREST_EXECUTOR_PREVIOUS_KEY_PROVIDERS=" + uri}})
}

// after returns a condition that holds once d has passed.
func after(d time.Duration) func() bool {
	until := time.Now().Add(d)
	return func() bool { return time.Now().After(until) }
}

func (c *chaos) run(t *testing.T, steps []chaosStep) {
	begun := time.Now()
	for i := range c.slots {
		c.place(t, i, append(slices.Clone(c.base), "FOREST_EXECUTOR_ENCRYPTION_KEY="+testKey))
	}
	c.use(t)
	pgtest.Eventually(t, "there is something to rotate", func() bool { return c.answered.Load() > 2*chaosUsers*chaosServers })
	var last chaosStep
	for _, step := range steps {
		c.move(t, step)
		t.Logf("%s after %v: %d requests answered, %d without an answer, %d kills", step.name, time.Since(begun).Round(time.Second),
			c.answered.Load(), c.doubtful.Load(), c.kills.Load())
		last = step
	}
	close(c.end)
	c.all.Wait()
	for _, s := range c.slots {
		s.s.Load().stop(t)
	}
	c.judge(t, append(slices.Clone(c.base), last.keys...))
}

// move reconfigures one instance after another, and rotates, while processes are
// killed.
func (c *chaos) move(t *testing.T, step chaosStep) {
	env := append(append(slices.Clone(c.base), step.keys...), step.with...)
	for i := range c.slots {
		c.place(t, i, env)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var killer sync.WaitGroup
	killer.Go(func() { c.kill(ctx, t) })
	if step.trouble != nil {
		killer.Go(func() { step.trouble(t) })
	}
	before := c.kills.Load()
	report := c.rotate(t, env)
	for c.kills.Load() < before+2 { // it was quick: once more, and not undisturbed
		report = c.rotate(t, env)
	}
	cancel()
	killer.Wait()
	if !report.Independent {
		t.Errorf("%s: the report is %+v", step.name, report)
	}
}

// rotate runs the command until it has ended well.
func (c *chaos) rotate(t *testing.T, env []string) rotation.Report {
	deadline := time.Now().Add(5 * time.Minute)
	for {
		cmd := lockwood(t.Context(), t, env, "key", "rotate", "--reseal", "--wait", "--json", "--max-rate", "150")
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		c.mu.Lock()
		c.command = cmd
		c.mu.Unlock()
		err := cmd.Wait()
		c.mu.Lock()
		c.command = nil
		c.mu.Unlock()
		var report rotation.Report
		if err == nil && json.Unmarshal(stdout.Bytes(), &report) == nil {
			return report
		}
		if time.Now().After(deadline) {
			t.Fatalf("the rotation does not end: %v\n%s\n%s", err, stdout.String(), stderr.String())
		}
		pgtest.Eventually(t, "a moment has passed", after(200*time.Millisecond))
	}
}

// kill kills an instance or the command every second or two.
func (c *chaos) kill(ctx context.Context, t *testing.T) {
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(800+c.intN(1200)) * time.Millisecond):
		}
		if n%2 == 0 {
			c.mu.Lock()
			if c.command != nil {
				_ = c.command.Process.Kill()
				c.kills.Add(1)
			}
			c.mu.Unlock()
			continue
		}
		i := c.intN(len(c.slots))
		s := c.slots[i]
		s.mu.Lock()
		s.s.Load().kill()
		s.s.Store(c.start(t, s.env))
		s.mu.Unlock()
		c.kills.Add(1)
	}
}

// place starts an instance with env in the place of the one that is there, as an
// operator does.
func (c *chaos) place(t *testing.T, i int, env []string) {
	s := c.slots[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.s.Load(); old != nil {
		old.stop(t)
	}
	s.env = env
	s.s.Store(c.start(t, env).ready(t))
}

func (c *chaos) start(t *testing.T, env []string) *server {
	return serve(t, append(env, "LOG_LEVEL=info"))
}

// use is what the users do all the while. Each user is one goroutine's.
func (c *chaos) use(t *testing.T) {
	const workers = 4
	for w := range workers {
		c.all.Go(func() {
			for n := 0; ; n++ {
				for user := int64(w + 1); user <= chaosUsers; user += workers {
					select {
					case <-c.end:
						return
					default:
						c.step(t, user, fmt.Sprintf("server-%d", n%chaosServers), n)
					}
				}
			}
		})
	}
}

func (c *chaos) step(t *testing.T, user int64, name string, n int) {
	s := c.slots[c.intN(len(c.slots))].s.Load()
	key := swapKey(user, name)
	token, done := fmt.Sprintf("token-%d-%s-%d", user, name, n), http.StatusOK
	var got answer
	switch choice := c.intN(10); {
	case choice == 0:
		_ = s.call(t, user, "GET", "/mcp-oauth-credentials", "")
		return
	case choice <= 2:
		token, done = "", http.StatusNoContent
		got = s.call(t, user, "DELETE", "/mcp-oauth-credentials/"+name, "")
	default:
		got = s.deposit(t, user, name, token)
	}
	if got.status != done {
		<-time.After(20 * time.Millisecond) // an instance that is gone refuses quickly
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if got.status == done {
		c.want[key] = outcomes{token}
		c.answered.Add(1)
		return
	}
	c.doubtful.Add(1)
	if c.want[key] == nil {
		c.want[key] = outcomes{""}
	}
	c.want[key] = append(c.want[key], token)
}

// judge opens everything with the last key alone.
func (c *chaos) judge(t *testing.T, env []string) {
	v := openVault(t, env)
	found := 0
	for user := int64(1); user <= chaosUsers; user++ {
		for n := range chaosServers {
			name := fmt.Sprintf("server-%d", n)
			held := ""
			opened, err := v.credentials.Open(t.Context(), user, name)
			switch {
			case err == nil:
				held = string(opened.RefreshToken)
				found++
			case !errors.Is(err, credential.ErrNotFound):
				t.Errorf("user %d, %s does not open: %v", user, name, err)
				continue
			}
			if want := c.want[swapKey(user, name)]; want != nil && !slices.Contains(want, held) {
				t.Errorf("user %d, %s holds %q, want one of %q", user, name, held, want)
			}
		}
	}
	state, err := v.store.LoadRing(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if status := v.ring.Status(); status.State != "ready" {
		t.Errorf("with the last key alone: %v", status.Err)
	}
	for _, k := range state.DataKeys {
		for _, w := range k.Wraps {
			if k.State != keyring.Enabled || w.KEKID != v.ring.Status().KEKID {
				t.Errorf("data key %s, %s, is wrapped under %s", k.ID, k.State, w.KEKID)
			}
		}
	}
	if report := verify(t, env, exitOK); report.OK != report.Records || report.Legacy != 0 {
		t.Errorf("credentials verify: %+v", report)
	}
	t.Logf("%d credentials open; %d data keys were made", found, len(state.DataKeys))
	if found == 0 || c.doubtful.Load() > c.answered.Load() {
		t.Errorf("%d credentials are left, %d requests were answered and %d not: the test shows nothing", found, c.answered.Load(), c.doubtful.Load())
	}
}
