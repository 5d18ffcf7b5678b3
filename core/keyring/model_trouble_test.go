package keyring_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
)

// trouble begins at a provider.
func (m *model) trouble() {
	k := m.anyKEK()
	if m.oneOf(2) {
		k = m.ring().current
	}
	var what string
	k.script(func(s *scriptedKMS) {
		switch m.rng.IntN(11) {
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
		case 10:
			what, k.garbles = "wraps what does not unwrap", true
		}
	})
	m.do("%s %s", k.name, what)
	m.mu.Lock()
	defer m.mu.Unlock()
	k.garbled = k.garbled || k.garbles
}

// relief ends the trouble of one provider, or of the store.
func (m *model) relief() {
	m.do("relief")
	m.db.edit(func(s *memoryStore) { s.err = nil })
	m.mu.Lock()
	m.lavish, m.fickle = false, false
	m.mu.Unlock()
	m.heal(m.anyKEK())
	m.heal(m.ring().current)
}

func (m *model) heal(k *modelKMS) {
	k.script(func(s *scriptedKMS) {
		s.err, s.unwraps, s.delay, s.swap, s.wrapsUnder, k.denials, k.slow, k.garbles, k.moved = nil, nil, 0, false, "", 0, false, false, nil
	})
}

func (m *model) storeTrouble() {
	if m.oneOf(2) {
		m.do("the store does not answer")
		m.db.edit(func(s *memoryStore) { s.err = core.ErrStoreUnavailable })
		return
	}
	if m.oneOf(2) {
		m.do("the store grants every seal")
		m.mu.Lock()
		m.lavish = true
		m.mu.Unlock()
		return
	}
	m.do("the store takes back what is inserted")
	m.mu.Lock()
	m.fickle = true
	m.mu.Unlock()
	m.call("rolls", m.roll)
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

// moveKEK has a provider wrap under another KEK than it names, as where an alias was moved.
func (m *model) moveKEK() {
	k, to := m.ring().current, m.anyKEK()
	if m.oneOf(3) {
		k = m.anyKEK()
	}
	if k == to {
		return
	}
	k.script(func(*scriptedKMS) { k.moved = to })
	m.do("%s wraps under %s", k.name, to.name)
	m.mu.Lock()
	defer m.mu.Unlock()
	k.anew = true // what it wraps meanwhile, it does not unwrap later
	k.unwrapsFor[to.key()] = true
}

// withdraw has a provider unwrap nothing any more, which its status does not show: it
// denies, or its key was made anew. Within the hour that is noticed.
func (m *model) withdraw() {
	p, denies := m.ring(), m.oneOf(2)
	m.heal(p.current)
	m.db.edit(func(s *memoryStore) { s.err = nil })
	_ = p.ring.Reload(m.t.Context())
	sealed := p.seal(m.t.Context(), []byte("before"))
	if denies {
		p.current.script(func(s *scriptedKMS) { s.unwraps = core.ErrKeyDenied })
	} else {
		m.remake(p.current)
	}
	m.do("%s unwraps nothing and looks healthy; %s seals: %v", p.current.name, p.name, sealed)
	pass(time.Hour + 3*p.opts.StatusInterval)
	held := p.ring.Status().Unlocked
	before := p.now()
	record, err := p.ring.Seal(m.t.Context(), nil, []byte("after"), modelAAD)
	if err == nil {
		p.sealed(before, record, []byte("after"))
	}
	state := m.db.snapshot()
	defer m.event()()
	if denies && sealed == nil && held > 0 {
		m.violate("%s holds %d data keys an hour after it could unwrap any", p.name, held)
	}
	id, _ := envelope.ParseHeader(record)
	k, _ := state.Find(id)
	if _, ok := m.made[id]; ok && !slices.ContainsFunc(k.Wraps, func(w core.WrappedKey) bool { return w.KEKID.Key() == p.current.key() && m.genuine(id, w) }) {
		m.violate("%s sealed under %s, which %s does not unwrap for an hour", p.name, short(id), p.current.name)
	}
}

// overtake has a denial come, and mostly go, while an unwrap is under way.
func (m *model) overtake() {
	p := m.ring()
	row, ok := m.anyRow()
	if !ok {
		return
	}
	m.heal(p.current)
	p.current.fail(core.ErrKeyDenied)
	pass(3 * p.opts.StatusInterval / 2)
	m.heal(p.current)
	pass(10 * time.Second)
	p.current.script(func(*scriptedKMS) { p.current.slow = true })
	opens := func(ctx context.Context) {
		before := p.now()
		if got, _, err := p.ring.Open(ctx, nil, row.record, modelAAD); err == nil {
			p.opened(before, &row, got, nil)
		}
	}
	m.pending.Go(func() { opens(m.t.Context()) })
	pass(10 * time.Millisecond)
	m.heal(p.current)
	p.current.script(func(s *scriptedKMS) { s.unwraps = core.ErrKeyDenied })
	_, _ = p.ring.Lost(m.t.Context())
	m.do("%s denies while %s opens a record of %s", p.current.name, p.name, short(row.key))
	if m.oneOf(2) {
		m.heal(p.current)
	}
	for range 10 {
		pass(modelSlow / 9)
		ctx, cancel := context.WithCancel(m.t.Context())
		cancel()
		opens(ctx)
	}
}

// makeAnew replaces the material of a KEK, or restores it.
func (m *model) makeAnew() {
	k := m.anyKEK()
	m.remake(k)
	m.do("%s is made anew, or restored", k.name)
}

func (m *model) remake(k *modelKMS) {
	m.mu.Lock()
	k.anew = true
	m.hostile = m.tick + 1
	m.mu.Unlock()
	k.script(func(s *scriptedKMS) {
		if k.before != nil {
			s.aead, k.before = k.before, nil
		} else {
			k.before, s.aead = s.aead, newKMS(k.name).aead
		}
	})
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
