package main

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/internal/tmptest"
	"github.com/lockwood-kms/lockwood/rotation"
)

// The chaos test rotates a store under use while processes are killed. The short
// form runs with every go test; the long one, env key → new env key → Vault → AWS
// KMS → env key on PostgreSQL with three instances and on SQLite with one, with the
// database restarted and the KMS stalled for a while, by
//
//	LOCKWOOD_TEST_REQUIRE_SERVERS=1 LOCKWOOD_TEST_LONG=1 go test ./cmd/lockwood -run TestChaos -timeout 60m -v
//
// The seed of a run is logged; LOCKWOOD_TEST_SEED=N repeats its choices, each
// goroutine's by a generator of its own, so that only how they meet is left to
// chance.
func TestChaos(t *testing.T) {
	t.Parallel()
	long := tmptest.Long()
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

// chaos is a store, the instances on it, and their users.
type chaos struct {
	d     *testDatabase
	seed  uint64
	base  []string // configuration but for the keys
	slots []*slot
	users []*chaosUsers

	mu      sync.Mutex // guards what follows
	command *exec.Cmd  // the rotation that runs, or nil

	answered, doubtful, listed, kills atomic.Int64

	end chan struct{}
	all sync.WaitGroup
}

// slot is the place of an instance, which is killed and started again.
type slot struct {
	mu  sync.Mutex // held while the instance is exchanged
	s   atomic.Pointer[server]
	env []string
}

func newChaos(t *testing.T, d *testDatabase, instances int) *chaos {
	c := &chaos{d: d, seed: rand.Uint64(), end: make(chan struct{})}
	if text := os.Getenv("LOCKWOOD_TEST_SEED"); text != "" {
		var err error
		if c.seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("LOCKWOOD_TEST_SEED=%d", c.seed)
	c.base = append(d.with("FOREST_EXECUTOR_ENCRYPTION_KEY"), "DRAIN_GRACE=0s")
	for range instances {
		c.slots = append(c.slots, &slot{})
	}
	return c
}

// choices returns the generator of one goroutine.
func (c *chaos) choices(stream int) *rand.Rand { return rand.New(rand.NewPCG(c.seed, uint64(stream))) }

// mostRotations is how often a step rotates at the most.
const mostRotations = 20

// killStream is the stream of the first step's killer; below it are the users'.
const killStream = 1000

func (c *chaos) run(t *testing.T, steps []chaosStep) {
	begun := time.Now()
	for i := range c.slots {
		c.place(t, i, append(slices.Clone(c.base), "FOREST_EXECUTOR_ENCRYPTION_KEY="+testKey))
	}
	c.use(t)
	pgtest.Eventually(t, "there is something to rotate", func() bool { return c.answered.Load() > 2*chaosUserCount*chaosServerCount })
	var last chaosStep
	for i, step := range steps {
		c.move(t, step, c.choices(killStream+i))
		t.Logf("%s after %v: %d requests answered, %d without an answer, %d lists compared, %d kills", step.name, time.Since(begun).Round(time.Second),
			c.answered.Load(), c.doubtful.Load(), c.listed.Load(), c.kills.Load())
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
func (c *chaos) move(t *testing.T, step chaosStep, choices *rand.Rand) {
	env := append(append(slices.Clone(c.base), step.keys...), step.with...)
	for i := range c.slots {
		c.place(t, i, env)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var around sync.WaitGroup
	around.Go(func() { c.kill(ctx, t, choices) })
	troubled := step.trouble == nil
	var inTrouble atomic.Bool
	around.Go(func() {
		if step.trouble != nil && c.underWay(ctx) {
			step.trouble(ctx, t)
			inTrouble.Store(true)
		}
	})
	before := c.kills.Load()
	report := c.rotate(t, env)
	for n := 1; c.kills.Load() < before+2 || !troubled && !inTrouble.Load(); n++ { // it was quick: once more, and not undisturbed
		if n == mostRotations || t.Failed() {
			t.Errorf("%s: %d rotations saw %d kills, and what else was to go wrong: %t", step.name, n, c.kills.Load()-before, inTrouble.Load())
			break
		}
		report = c.rotate(t, env)
	}
	cancel()
	around.Wait()
	c.judgeReport(t, step.name, report)
}

// underWay waits until a re-seal has made progress, and is not at its end.
func (c *chaos) underWay(ctx context.Context) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		var ended bool
		var done int64
		row := c.d.db.QueryRowContext(ctx, "SELECT ended, done FROM "+c.d.schema+"lockwood_reseal")
		if row.Scan(&ended, &done) == nil && !ended && done > 0 {
			return true
		}
	}
}

// rotate runs the command until it has ended well.
func (c *chaos) rotate(t *testing.T, env []string) *rotation.Report {
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
		report := &rotation.Report{}
		if err == nil && json.Unmarshal(stdout.Bytes(), report) == nil {
			return report
		}
		if time.Now().After(deadline) {
			t.Fatalf("the rotation does not end: %v\n%s\n%s", err, stdout.String(), stderr.String())
		}
		pgtest.Eventually(t, "a moment has passed", after(200*time.Millisecond))
	}
}

// after returns a condition that holds once d has passed.
func after(d time.Duration) func() bool {
	until := time.Now().Add(d)
	return func() bool { return time.Now().After(until) }
}

// kill kills the command or an instance every second or two, and less often the
// longer it takes, so that a machine on which everything is slow gets there too.
func (c *chaos) kill(ctx context.Context, t *testing.T, choices *rand.Rand) {
	const patience = 8
	for n := 0; ; n++ {
		pause, i := time.Duration(800+choices.IntN(1200))*time.Millisecond, choices.IntN(len(c.slots))
		pause *= time.Duration(1 + n/patience)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		if n%2 == 0 {
			c.killCommand()
			continue
		}
		c.killInstance(t, c.slots[i])
	}
}

// killInstance kills an instance, and starts it again.
func (c *chaos) killInstance(t *testing.T, s *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.s.Load().kill()
	s.s.Store(c.start(t, s.env))
	c.kills.Add(1)
}

func (c *chaos) killCommand() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.command != nil {
		_ = c.command.Process.Kill()
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
	return serve(t, append(slices.Clone(env), "LOG_LEVEL=info"))
}
