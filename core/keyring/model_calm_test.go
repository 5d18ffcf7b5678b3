package keyring_test

import (
	"slices"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// calm ends all trouble, has the operator restore what the store held, and gives the
// rings time. Then each has to seal, and to open what was acknowledged.
func (m *model) calm() {
	m.repair()
	defer m.repaired()
	pass(20 * time.Second) // what was read before is not taken up later
	for i, p := range m.rings {
		if m.needsRestart(p) {
			m.restart(i)
		}
	}
	m.restoreAgain()
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
	m.quiet, m.lavish, m.fickle, m.hostile, m.madeUp = true, false, false, m.tick, nil
	m.tidy()
	m.db.edit(func(s *memoryStore) { s.err, s.state = nil, cloneState(&m.honest) })
	m.rows = slices.DeleteFunc(m.rows, func(r modelRow) bool { return honestKey(&m.honest, r.key) == nil })
}

// restoreAgain takes back what a ring that served another store still made in this one
// before it was ended: the store cannot tell, and no ring of this one unwraps it. That the
// rings do not seal then is no fault of theirs.
func (m *model) restoreAgain() {
	synctest.Wait()
	state := m.db.snapshot()
	defer m.event()()
	if !slices.ContainsFunc(state.DataKeys, func(k keyring.DataKeyState) bool {
		truth, ok := m.made[k.ID]
		return ok && truth.storeID != state.StoreID
	}) {
		return
	}
	m.note("the store is restored again: another store's ring made a data key in it")
	m.hostile = m.tick
	m.db.edit(func(s *memoryStore) { s.state = cloneState(&m.honest) })
}

// repaired ends the calm.
func (m *model) repaired() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.quiet = false
}

// modelKeys is how many enabled data keys an operator leaves that no record needs.
const modelKeys = 12

// tidy has the operator destroy the oldest data keys that no record is sealed under, so
// that a walk does not become slow. m.mu is held.
func (m *model) tidy() {
	enabled := len(m.honest.EnabledKeys())
	for i := range m.honest.DataKeys {
		k := &m.honest.DataKeys[i]
		used := k.Primary || slices.ContainsFunc(m.rows, func(r modelRow) bool { return r.key == k.ID })
		if enabled > modelKeys && k.State == keyring.Enabled && !used {
			k.State, k.Wraps = keyring.Destroyed, nil
			enabled--
		}
	}
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

// modelRolled is how long a ring may take to see that another one rolled.
const modelRolled = 75 * time.Second

// rolledLately reports whether there may be a ring that has not seen the primary. Until it
// has, it is not the wraps of that one which decide whether it seals.
func (m *model) rolledLately() bool {
	state := m.db.snapshot()
	p := state.Primary()
	return p != nil && time.Since(p.CreatedAt) < modelRolled
}

// works judges that p seals and opens all that it can.
func (m *model) works(p *process) {
	err := p.seal(m.t.Context(), []byte("calm"))
	for tries := 0; err != nil && tries < 10 && (tries < 2 || m.rolledLately()); tries++ {
		pass(modelRolled)
		err = p.seal(m.t.Context(), []byte("calm"))
	}
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
	case err != nil && (current || opens && !p.opts.NoAutoRewrap && !p.current.anew && !p.current.garbled && !p.sealsWith(primary.ID)):
		m.violate("%s does not seal: %v", p.name, err)
	case err == nil && (dead || !slices.ContainsFunc(primary.Wraps, func(w core.WrappedKey) bool { return m.genuine(primary.ID, w) })):
		m.violate("%s sealed under %s, whose wrap does not unwrap", p.name, short(primary.ID))
	case err == nil && p.exposed(primary.ID):
		m.violate("%s sealed under %s, which it knows to be exposed", p.name, short(primary.ID))
	}
	m.opensAll(p, &state)
}

// sealsWith reports whether p has the data key named id in memory as one that seals. That
// its wrap is gone then has a reason, which p does not undo.
func (p *process) sealsWith(id envelope.KeyID) bool {
	for k, began := range p.sealProofs {
		if k.id == id && began > p.evicted() {
			return true
		}
	}
	return false
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
