package keyring_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// The model walks: three rings on one store take random steps, while somebody edits
// the store, providers fail, KEKs rotate and leak, and time passes. After each step it
// checks what docs/threat-model.md promises of the ring.
//
// A walk has a seed, which a failure prints, and LOCKWOOD_TEST_SEED=N repeats that walk
// alone. Its choices are then the same; when a ring asks its provider again, and the
// keys, are still left to chance. The short form walks from seeds that never change. The
// long form takes 100,000 steps, or LOCKWOOD_TEST_STEPS of them, and every walk has
// another seed:
//
//	LOCKWOOD_TEST_LONG=1 go test ./core/keyring -run TestModel -timeout 0 -v
//
// Mutations of the ring that it finds within some thousand steps: a recovered data key
// seals; reservations, a budget that was set back, and superseded, newer, exposed or
// compromised keys are forgotten; any wrap is permitted; another store is taken up; data
// keys are kept or admitted after a denial, the outage budget or the end; a wrap is stored
// or pruned unproven, or not proven again; a KEK is left out of a new data key;
// refused wraps, unknown key IDs and rolls have no bound. It does not find one that a
// second guard makes up for, such as permitCurrent, which permit does.
func TestModel(t *testing.T) {
	if seed, ok := variable(t, "LOCKWOOD_TEST_SEED"); ok {
		walk(t, seed)
		return
	}
	if os.Getenv("LOCKWOOD_TEST_LONG") == "" {
		for _, seed := range []uint64{1, 2, 3} {
			walk(t, seed)
		}
		return
	}
	steps, ok := variable(t, "LOCKWOOD_TEST_STEPS")
	if !ok {
		steps = 100_000
	}
	for taken := uint64(0); taken < steps && !t.Failed(); taken += stepsOfAWalk {
		walk(t, rand.Uint64())
	}
}

// variable returns the number in a variable of the environment, if it is set.
func variable(t *testing.T, name string) (n uint64, ok bool) {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n, true
}

// stepsOfAWalk is how many steps a walk has. The store of a walk grows, so that a long
// test is many walks.
const stepsOfAWalk = 200

// model is one walk.
type model struct {
	*oracle
	t         *testing.T
	rng       *rand.Rand // of the steps
	gone      []*process // those that ended last
	names     int        // of KEKs and processes so far
	recovery  []*modelKMS
	snapshots []keyring.State
	pending   sync.WaitGroup
}

func walk(t *testing.T, seed uint64) {
	t.Run("LOCKWOOD_TEST_SEED="+strconv.FormatUint(seed, 10), func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := &model{
				oracle: &oracle{
					db: newStore(), delays: rand.New(rand.NewPCG(seed, 1)), made: make(map[envelope.KeyID]madeKey), planted: make(map[envelope.KeyID][]*modelKMS), endorsed: make(map[envelope.KeyID]bool),
					honest: keyring.State{StoreID: modelStoreID}, granted: make(map[envelope.KeyID]int64), rewound: make(map[envelope.KeyID]bool),
				},
				t: t, rng: rand.New(rand.NewPCG(seed, 0)),
			}
			defer m.end()
			m.begin()
			for range stepsOfAWalk {
				m.step()
			}
			m.calm()
		})
	})
}

func (m *model) begin() {
	for range 3 {
		m.addKEK()
	}
	for range 2 {
		m.recovery = append(m.recovery, m.addKEK())
	}
	m.rings = make([]*process, 3)
	for i := range m.rings {
		m.restart(i)
	}
}

func (m *model) end() {
	for _, p := range m.rings {
		m.stop(p)
	}
	m.pending.Wait()
	m.fail()
}

// fail ends the test if a promise was broken.
func (m *model) fail() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != "" && !m.t.Failed() {
		m.t.Fatalf("%s\nthe last steps:\n%s", m.broken, strings.Join(m.trace[max(0, len(m.trace)-80):], "\n"))
	}
}

// do says what the step is.
func (m *model) do(format string, args ...any) {
	defer m.event()()
	m.note(format, args...)
}

func (m *model) addKEK() *modelKMS {
	m.names++
	k := &modelKMS{scriptedKMS: newKMS("k" + strconv.Itoa(m.names)), unwrapsFor: make(map[string]bool)}
	defer m.event()()
	m.keks = append(m.keks, k)
	return k
}

func (m *model) isRecovery(k *modelKMS) bool { return slices.Contains(m.recovery, k) }

func (m *model) oneOf(n int) bool { return m.rng.IntN(n) == 0 }

func pick[T any](m *model, from []T) T { return from[m.rng.IntN(len(from))] }

func (m *model) ring() *process { return pick(m, m.rings) }

// clean returns the KEKs that may be current: those that no process, and no honest
// operator, takes for compromised.
func (m *model) clean() []*modelKMS {
	var clean []*modelKMS
	for _, k := range m.keks {
		if !m.isRecovery(k) && !k.leaked && !slices.ContainsFunc(m.rings, func(p *process) bool { return p != nil && !p.closed && p.compromised[k.key()] > 0 }) {
			clean = append(clean, k)
		}
	}
	return clean
}

// restart ends ring i as a crash does, and starts another configuration.
func (m *model) restart(i int) {
	if m.rings[i] != nil {
		m.stop(m.rings[i])
	}
	for len(m.clean()) == 0 {
		m.addKEK()
	}
	m.names++
	p := newProcess(m.oracle, fmt.Sprintf("%c%d", 'A'+i, m.names))
	p.started = time.Now()
	clean := m.clean()
	p.current = pick(m, clean[max(0, len(clean)-2):])
	p.opts = keyring.Options{
		NoAutoRewrap: i == 2 && m.oneOf(2), MaxSeals: modelMaxSeals, SealBlock: 1 + m.rng.Int64N(8),
		PollInterval:   pick(m, []time.Duration{5 * time.Second, 20 * time.Second, time.Minute}),
		StatusInterval: pick(m, []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute}),
		OutageBudget:   pick(m, []time.Duration{10 * time.Minute, time.Hour, keyring.DefaultOutageBudget}),
		MaxAge:         pick(m, []time.Duration{0, 0, 2 * time.Hour}),
		Live:           m.live,
		Logger:         slog.New(slog.NewTextHandler(traceWriter{p}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, k := range m.keks {
		switch {
		case k == p.current:
		case m.isRecovery(k):
			if m.oneOf(1 + i) {
				p.recovery = append(p.recovery, k)
				p.opts.Recovery = append(p.opts.Recovery, keyring.NewRecoveryKEK(watchedKMS{k, p}))
			}
		case !m.oneOf(6):
			p.previous = append(p.previous, k)
			p.opts.Previous = append(p.opts.Previous, watchedKMS{k, p})
		}
	}
	p.ring = keyring.New(watchedKMS{p.current, p}, watchedStore{m.db, p}, &p.opts)
	m.mu.Lock()
	m.rings[i] = p
	m.mu.Unlock()
	m.do("%s starts: current %s, %d previous, %d recovery, poll %s, budget %s, block %d, NoAutoRewrap %v", p.name, p.current.name, len(p.previous), len(p.recovery), p.opts.PollInterval, p.opts.OutageBudget, p.opts.SealBlock, p.opts.NoAutoRewrap)
	if err := p.ring.Start(m.t.Context()); err != nil && !isSentinel(err) {
		m.broken = fmt.Sprintf("Start: %v", err)
	}
}

func (m *model) stop(p *process) {
	p.ring.Close()
	m.gone = append(m.gone, p)
	m.gone = m.gone[max(0, len(m.gone)-4):]
	defer m.event()()
	p.closed = true
}

// live names the KEK of each ring, and what the attacker made up.
func (m *model) live(context.Context) ([]keyring.LiveInstance, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	live := slices.Clone(m.madeUp)
	for _, p := range m.rings {
		if p != nil && !p.closed {
			live = append(live, keyring.LiveInstance{Name: p.name, KEKIDs: []core.KEKID{core.NewKEKID(p.current.key(), "1")}})
		}
	}
	return live, nil
}

// traceWriter writes the log of a process into the trace, without what was said just
// before.
type traceWriter struct{ p *process }

func (w traceWriter) Write(line []byte) (int, error) {
	defer w.p.event()()
	_, after, _ := strings.Cut(strings.TrimSpace(string(line)), "level=")
	text := after[:min(len(after), 260)]
	if !slices.Contains(w.p.logged, text) {
		w.p.note("  %s logs %s", w.p.name, text)
	}
	w.p.logged = append(w.p.logged, text)
	w.p.logged = w.p.logged[max(0, len(w.p.logged)-6):]
	return len(line), nil
}

// step takes a random step, and checks the promises.
func (m *model) step() {
	weight := 0
	for _, s := range steps {
		weight += s.weight
	}
	at := m.rng.IntN(weight)
	for _, s := range steps {
		if at -= s.weight; at < 0 {
			s.take(m)
			break
		}
	}
	synctest.Wait()
	for _, p := range m.rings {
		if !m.oneOf(3) {
			m.seal(p)
		}
	}
	for range 2 {
		m.open(m.ring())
	}
	synctest.Wait()
	for _, p := range m.rings {
		p.check()
	}
	for _, p := range m.gone {
		p.check()
		m.seal(p)
	}
	m.fail()
}

var steps = []struct {
	weight int
	take   func(*model)
}{
	{30, (*model).wait},
	{30, (*model).attack},
	{5, (*model).snapshot},
	{12, (*model).trouble},
	{12, (*model).relief},
	{3, (*model).storeTrouble},
	{8, (*model).forge},
	{5, func(m *model) { m.call("rolls", m.roll) }},
	{5, func(m *model) {
		m.call("reloads", func(ctx context.Context, p *process) error { return p.ring.Reload(ctx) })
	}},
	{4, func(m *model) {
		m.call("rewraps", func(ctx context.Context, p *process) error { _, err := p.ring.Rewrap(ctx); return err })
	}},
	{5, func(m *model) {
		keep := m.keep()
		m.call("prunes", func(ctx context.Context, p *process) error { return m.prune(ctx, p, keep) })
	}},
	{4, (*model).destroy},
	{4, func(m *model) { m.call("seals anew", m.reseal) }},
	{2, func(m *model) { m.call("recovers", m.recover) }},
	{2, func(m *model) {
		m.call("looks for what is lost", func(ctx context.Context, p *process) error { _, err := p.ring.Lost(ctx); return err })
	}},
	{5, func(m *model) { m.restart(m.rng.IntN(len(m.rings))) }},
	{4, func(m *model) { m.burst(m.ring()) }},
	{2, (*model).hide},
	{2, (*model).lose},
	{1, (*model).storm},
	{2, (*model).makeUpInstances},
	{1, (*model).withdraw},
	{1, (*model).overtake},
	{3, (*model).rotateKEK},
	{2, (*model).moveKEK},
	{2, (*model).compromise},
	{2, (*model).makeAnew},
	{2, (*model).calm},
}
