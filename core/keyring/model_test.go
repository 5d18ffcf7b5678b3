package keyring_test

import (
	"bytes"
	"context"
	"errors"
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
// keys, are still left to chance. The long form takes LOCKWOOD_TEST_STEPS steps:
//
//	LOCKWOOD_TEST_LONG=1 LOCKWOOD_TEST_STEPS=100000 go test ./core/keyring -run TestModel -timeout 0 -v
func TestModel(t *testing.T) {
	if text := os.Getenv("LOCKWOOD_TEST_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		walk(t, seed)
		return
	}
	if os.Getenv("LOCKWOOD_TEST_LONG") == "" {
		t.Log("the model walks with LOCKWOOD_TEST_LONG=1 only")
		return
	}
	steps := 100_000
	if text := os.Getenv("LOCKWOOD_TEST_STEPS"); text != "" {
		var err error
		if steps, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	for ; steps > 0 && !t.Failed(); steps -= stepsOfAWalk {
		walk(t, rand.Uint64())
	}
}

// stepsOfAWalk is how many steps a walk has. The store of a walk grows, so that a long
// test is many walks.
const stepsOfAWalk = 200

// model is one walk.
type model struct {
	*oracle
	t         *testing.T
	rng       *rand.Rand // of the steps
	rings     []*process
	names     int // of KEKs and processes so far
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
	k := &modelKMS{scriptedKMS: newKMS("k" + strconv.Itoa(m.names))}
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
	clean := m.clean()
	p.current = pick(m, clean[max(0, len(clean)-2):])
	p.opts = keyring.Options{
		NoAutoRewrap: i == 2 && m.oneOf(2), MaxSeals: modelMaxSeals, SealBlock: 1 + m.rng.Int64N(8),
		PollInterval:   pick(m, []time.Duration{2 * time.Second, 20 * time.Second, time.Minute}),
		StatusInterval: pick(m, []time.Duration{30 * time.Second, 2 * time.Minute}),
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
	m.rings[i] = p
	m.do("%s starts: current %s, %d previous, %d recovery, poll %s, budget %s, block %d, NoAutoRewrap %v", p.name, p.current.name, len(p.previous), len(p.recovery), p.opts.PollInterval, p.opts.OutageBudget, p.opts.SealBlock, p.opts.NoAutoRewrap)
	if err := p.ring.Start(m.t.Context()); err != nil && !isSentinel(err) {
		m.broken = fmt.Sprintf("Start: %v", err)
	}
}

func (m *model) stop(p *process) {
	p.ring.Close()
	defer m.event()()
	p.closed = true
}

// live names the KEK of each ring.
func (m *model) live(context.Context) ([]keyring.LiveInstance, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var live []keyring.LiveInstance
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
	{5, func(m *model) {
		m.call("rolls", func(ctx context.Context, p *process) error { return p.ring.Roll(ctx) })
	}},
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
	{3, (*model).rotateKEK},
	{2, (*model).compromise},
	{2, (*model).makeAnew},
	{2, (*model).calm},
}

// wait lets time pass, mostly little.
func (m *model) wait() {
	longest := pick(m, []time.Duration{
		10 * time.Millisecond, time.Second, time.Second, 5 * time.Second, 5 * time.Second, 40 * time.Second, 40 * time.Second, 3 * time.Minute, 15 * time.Minute, 2 * time.Hour,
	})
	d := time.Duration(m.rng.Int64N(int64(longest)))
	m.do("%s passes", d)
	pass(d)
}

// call has a ring do something, and does not always wait for it.
func (m *model) call(what string, f func(context.Context, *process) error) {
	p, background := m.ring(), m.oneOf(3)
	m.do("%s %s, in the background: %v", p.name, what, background)
	work := func() {
		ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
		defer cancel()
		err := f(ctx, p)
		defer m.event()()
		m.note("%s %s: %v", p.name, what, err)
		if err != nil && !isSentinel(err) && err.Error() != "making a data key: no version follows the newest in the store" {
			m.violate("%s %s, which ends in an error that is no sentinel: %v", p.name, what, err)
		}
	}
	if background {
		m.pending.Go(work)
	} else {
		work()
	}
}

var modelAAD = []byte("aad")

// seal seals one record, or gives up soon.
func (m *model) seal(p *process) {
	plaintext := fmt.Appendf(nil, "token %d", m.rng.Uint64())
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Duration(m.rng.IntN(100))*time.Millisecond)
	defer cancel()
	_ = m.sealIn(ctx, p, plaintext)
}

func (m *model) sealIn(ctx context.Context, p *process, plaintext []byte) error {
	before := p.now()
	record, err := p.ring.Seal(ctx, nil, plaintext, modelAAD)
	if err == nil {
		p.sealed(before, record, plaintext)
		return nil
	}
	if !isSentinel(err) {
		defer m.event()()
		m.violate("%s: Seal = %v", p.name, err)
	}
	return err
}

// anyRow returns one of the records that were acknowledged.
func (m *model) anyRow() (row modelRow, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.rows) == 0 {
		return modelRow{}, false
	}
	return pick(m, m.rows), true
}

func (m *model) open(p *process) {
	row, ok := m.anyRow()
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(m.t.Context(), 50*time.Millisecond)
	defer cancel()
	before := p.now()
	got, _, err := p.ring.Open(ctx, nil, row.record, modelAAD)
	p.opened(before, &row, got, err)
}

// forge opens what nobody sealed so.
func (m *model) forge() {
	row, ok := m.anyRow()
	if !ok {
		return
	}
	record, aad := slices.Clone(row.record), modelAAD
	var how string
	switch m.rng.IntN(4) {
	case 0:
		how, aad = "another aad", []byte("another")
	case 1:
		how = "another byte"
		record[m.rng.IntN(len(record))] ^= 1
	case 2:
		how = "an unknown data key"
		copy(record[4:], randomBytes(envelope.KeyIDSize))
	default:
		how = "another data key"
		state := m.db.snapshot()
		if len(state.DataKeys) == 0 {
			return
		}
		id := m.anyKey(&state).ID
		if id == row.key {
			return
		}
		copy(record[4:], id[:])
	}
	p := m.ring()
	m.do("%s opens a record with %s", p.name, how)
	ctx, cancel := context.WithTimeout(m.t.Context(), 20*time.Second)
	defer cancel()
	if _, _, err := p.ring.Open(ctx, nil, record, aad); err == nil || !isSentinel(err) {
		defer m.event()()
		m.violate("%s opened a record with %s: %v", p.name, how, err)
	}
}

// reseal seals records anew, so that older data keys can be destroyed.
func (m *model) reseal(ctx context.Context, p *process) error {
	m.mu.Lock()
	rows := slices.Clone(m.rows)
	m.mu.Unlock()
	for _, row := range rows {
		before := p.now()
		plaintext, _, err := p.ring.Open(ctx, nil, row.record, modelAAD)
		p.opened(before, &row, plaintext, err)
		if err != nil {
			return err
		}
		if err := m.sealIn(ctx, p, plaintext); err != nil {
			return err
		}
		m.mu.Lock()
		// Only if the new one was stored.
		if slices.ContainsFunc(m.rows, func(r modelRow) bool { return bytes.Equal(r.plaintext, plaintext) && r.key != row.key }) {
			m.rows = slices.DeleteFunc(m.rows, func(r modelRow) bool { return bytes.Equal(r.record, row.record) })
		}
		m.mu.Unlock()
	}
	return nil
}

func (m *model) destroy() {
	state := m.db.snapshot()
	if len(state.DataKeys) == 0 {
		return
	}
	id := m.anyKey(&state).ID
	m.call("destroys "+short(id), func(ctx context.Context, p *process) error { _, err := p.ring.Destroy(ctx, id); return err })
}

// keep returns what is not pruned: mostly what is under the KEK of a ring that runs.
func (m *model) keep() func(core.KEKID) bool {
	if m.oneOf(5) {
		return keepNone
	}
	live, _ := m.live(context.Background())
	return func(id core.KEKID) bool {
		return slices.ContainsFunc(live, func(i keyring.LiveInstance) bool { return i.KEKIDs[0].Key() == id.Key() })
	}
}

func (m *model) prune(ctx context.Context, p *process, keep func(core.KEKID) bool) error {
	m.mu.Lock()
	if p.pruning++; p.pruning == 1 {
		p.pruneBegan = m.tick
	}
	m.mu.Unlock()
	_, err := p.ring.Prune(ctx, keep)
	defer m.event()()
	p.pruning--
	return err
}

func (m *model) recover(ctx context.Context, p *process) error {
	var identities []core.KeyProvider
	for _, k := range m.recovery {
		identities = append(identities, k.scriptedKMS)
	}
	m.mu.Lock()
	p.recovering++
	m.mu.Unlock()
	_, err := p.ring.Recover(ctx, identities)
	defer m.event()()
	p.recovering--
	return err
}

// snapshot is kept for the attacker to restore.
func (m *model) snapshot() {
	s := m.db.snapshot()
	if m.snapshots = append(m.snapshots, cloneState(&s)); len(m.snapshots) > 4 {
		m.snapshots = slices.Delete(m.snapshots, 0, 1)
	}
}

// trouble begins at a provider.
func (m *model) trouble() {
	k := m.anyKEK()
	if m.oneOf(2) {
		k = m.ring().current
	}
	var what string
	k.script(func(s *scriptedKMS) {
		switch m.rng.IntN(10) {
		case 0, 1:
			what, s.err = "does not answer", core.ErrUnavailable
		case 2:
			what, s.err = "denies", core.ErrKeyDenied
		case 3:
			what, s.unwraps = "denies to unwrap", core.ErrKeyDenied
		case 4:
			what, k.denials = "denies to unwrap a few times", 1+m.rng.IntN(3)
		case 5, 6:
			what, s.delay = "is slow", time.Duration(m.rng.IntN(12_000))*time.Millisecond
		case 7:
			what, s.err = "has no key", core.ErrKeyMissing
		case 8:
			what, s.swap = "returns other keys", true
		case 9:
			what, s.unwraps = "is confused", errors.New("the provider is confused")
		}
	})
	m.do("%s %s", k.name, what)
}

// relief ends the trouble of one provider, or of the store.
func (m *model) relief() {
	m.do("relief")
	m.db.edit(func(s *memoryStore) { s.err = nil })
	m.mu.Lock()
	m.lavish = false
	m.mu.Unlock()
	m.heal(m.anyKEK())
	m.heal(m.ring().current)
}

func (m *model) heal(k *modelKMS) {
	k.script(func(s *scriptedKMS) {
		s.err, s.unwraps, s.delay, s.swap, s.wrapsUnder, k.denials = nil, nil, 0, false, "", 0
	})
}

func (m *model) storeTrouble() {
	if m.oneOf(2) {
		m.do("the store does not answer")
		m.db.edit(func(s *memoryStore) { s.err = core.ErrStoreUnavailable })
		return
	}
	m.do("the store grants every seal")
	m.mu.Lock()
	m.lavish = true
	m.mu.Unlock()
}

// rotateKEK makes a new version of a KEK.
func (m *model) rotateKEK() {
	k := m.anyKEK()
	k.script(func(s *scriptedKMS) {
		if was := s.version; m.oneOf(4) {
			s.wrapsUnder = was
		}
		s.version = strconv.Itoa(m.rng.IntN(1000) + 2)
	})
	m.do("%s has version %s", k.name, k.version)
}

// makeAnew replaces the material of a KEK, or restores it.
func (m *model) makeAnew() {
	k := m.anyKEK()
	k.anew = true
	m.mu.Lock()
	m.hostile = m.tick + 1
	m.mu.Unlock()
	k.script(func(s *scriptedKMS) {
		if k.before != nil {
			s.aead, k.before = k.before, nil
		} else {
			k.before, s.aead = s.aead, newKMS(k.name).aead
		}
	})
	m.do("%s is made anew, or restored", k.name)
}

// compromise names a KEK compromised, which the attacker has from then on.
func (m *model) compromise() {
	k := m.anyKEK()
	m.do("%s leaks, and is named compromised", k.name)
	m.mu.Lock()
	k.leaked = true
	m.honest.Compromised = append(m.honest.Compromised, k.key())
	m.mu.Unlock()
	m.db.edit(func(s *memoryStore) { s.state.Compromised = append(slices.Clone(s.state.Compromised), k.key()) })
}

// calm ends all trouble, has the operator restore what the store held, and gives the
// rings time. Then each has to seal, and to open what was acknowledged.
func (m *model) calm() {
	m.repair()
	pass(20 * time.Second) // what was read before is not taken up later
	for i, p := range m.rings {
		if m.needsRestart(p) {
			m.restart(i)
		}
	}
	pass(70*time.Minute + time.Duration(m.rng.Int64N(int64(time.Minute))))
	for _, p := range m.rings {
		m.works(p)
	}
	m.fail()
}

func (m *model) repair() {
	for _, k := range m.keks {
		m.heal(k)
		k.script(func(s *scriptedKMS) {
			if k.before != nil && m.oneOf(2) {
				s.aead = k.before
			}
			k.before = nil
		})
	}
	defer m.event()()
	m.note("calm: the store is restored, and all providers are healthy")
	m.lavish, m.hostile = false, m.tick
	m.db.edit(func(s *memoryStore) { s.err, s.state = nil, cloneState(&m.honest) })
	m.rows = slices.DeleteFunc(m.rows, func(r modelRow) bool { return honestKey(&m.honest, r.key) == nil })
}

// needsRestart reports whether an operator would restart p: it serves another store, its
// current KEK is compromised, or the attacker made it believe so of some KEK.
func (m *model) needsRestart(p *process) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range p.compromised {
		if !slices.Contains(m.honest.Compromised, key) {
			return true
		}
	}
	return p.storeID != modelStoreID || p.current.leaked
}

// works judges that p seals and opens all that it can.
func (m *model) works(p *process) {
	err := m.sealIn(m.t.Context(), p, []byte("calm"))
	state := m.db.snapshot()
	primary := state.Primary()
	m.mu.Lock()
	defer m.mu.Unlock()
	if primary == nil {
		m.violate("%s: there is no primary, %v", p.name, err)
		return
	}
	current, opens, dead := false, false, false
	for _, w := range primary.Wraps {
		if !p.genuine(primary.ID, w) {
			dead = dead || w.KEKID == p.current.kekID()
		} else {
			current = current || w.KEKID.Key() == p.current.key()
			opens = opens || slices.ContainsFunc(p.configured(), func(k *modelKMS) bool { return k.key() == w.KEKID.Key() })
		}
	}
	switch {
	case err != nil && (current || opens && !p.opts.NoAutoRewrap && !p.current.anew):
		m.violate("%s does not seal: %v", p.name, err)
	case err == nil && (dead || !slices.ContainsFunc(primary.Wraps, func(w core.WrappedKey) bool { return m.genuine(primary.ID, w) })):
		m.violate("%s sealed under %s, whose wrap does not unwrap", p.name, short(primary.ID))
	case err == nil && p.exposed(primary.ID):
		m.violate("%s sealed under %s, which it knows to be exposed", p.name, short(primary.ID))
	}
	m.opensAll(p, &state)
}

// opensAll judges that p opens each record whose data key a KEK of its unwraps.
func (m *model) opensAll(p *process, state *keyring.State) {
	for _, row := range m.rows {
		k, _ := state.Find(row.key)
		if !slices.ContainsFunc(k.Wraps, func(w core.WrappedKey) bool {
			return m.genuine(row.key, w) && slices.ContainsFunc(p.configured(), func(k *modelKMS) bool { return k.key() == w.KEKID.Key() })
		}) {
			continue
		}
		m.mu.Unlock()
		before := p.now()
		got, _, err := p.ring.Open(m.t.Context(), nil, row.record, modelAAD)
		p.opened(before, &row, got, err)
		m.mu.Lock()
		if err != nil {
			m.violate("%s does not open a record of %s: %v", p.name, short(row.key), err)
		}
	}
}
