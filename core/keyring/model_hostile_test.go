package keyring_test

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// hostileEdits are what the attacker does to the database, each of which says what it did.
var hostileEdits = []func(*model, *keyring.State) string{
	(*model).makePrimaryAgain,
	(*model).makePrimaryAgain,
	(*model).raiseVersion,
	(*model).setSealsBack,
	(*model).setSealsBack,
	(*model).removeWraps,
	(*model).removeKEK,
	(*model).plantGarbage,
	(*model).plantForeign,
	(*model).plantKnown,
	(*model).plantKnown,
	(*model).plantWrap,
	(*model).swapStore,
	(*model).restoreSnapshot,
	(*model).restoreSnapshot,
	(*model).editCompromised,
	(*model).editCompromised,
	(*model).editPrimaries,
	(*model).editState,
	(*model).removeRow,
	(*model).copyRow,
}

// attack edits the database.
func (m *model) attack() {
	m.edit(func(s *keyring.State) string { return hostileEdits[m.rng.IntN(len(hostileEdits))](m, s) })
}

// edit has the attacker edit the database by f, which says what it did.
func (m *model) edit(f func(*keyring.State) string) {
	defer m.event()()
	m.hostile = m.tick
	m.db.edit(func(s *memoryStore) {
		state := s.copy()
		if len(state.DataKeys) == 0 {
			return
		}
		m.note("attack: %s", f(&state))
		s.state = state
	})
	m.markRewound()
}

// markRewound notes which reservations the store has forgotten. o.mu is held.
func (o *oracle) markRewound() {
	state := o.db.snapshot()
	for _, k := range state.DataKeys {
		if k.SealsReserved < o.granted[k.ID] {
			o.rewound[k.ID] = true
		}
	}
}

func (m *model) anyKey(s *keyring.State) *keyring.DataKeyState {
	return &s.DataKeys[m.rng.IntN(len(s.DataKeys))]
}

func (m *model) anyKEK() *modelKMS { return m.keks[m.rng.IntN(len(m.keks))] }

func setPrimary(s *keyring.State, id envelope.KeyID) {
	for i := range s.DataKeys {
		s.DataKeys[i].Primary = s.DataKeys[i].ID == id && s.DataKeys[i].State == keyring.Enabled
	}
}

func (m *model) aboveAll(s *keyring.State) int64 {
	var top int64
	for _, k := range s.DataKeys {
		top = max(top, k.Version)
	}
	return top + 1 + m.rng.Int64N(20)
}

func (m *model) makePrimaryAgain(s *keyring.State) string {
	k := m.anyKey(s)
	if m.rng.IntN(2) == 0 {
		k.State = keyring.Enabled
	}
	if m.rng.IntN(3) == 0 {
		k.Version = m.aboveAll(s)
	}
	setPrimary(s, k.ID)
	return fmt.Sprintf("%s is the primary, version %d", short(k.ID), k.Version)
}

func (m *model) raiseVersion(s *keyring.State) string {
	k := m.anyKey(s)
	if p := s.Primary(); p != nil && m.rng.IntN(2) == 0 {
		k = p
	}
	k.Version = m.aboveAll(s)
	return fmt.Sprintf("%s has version %d", short(k.ID), k.Version)
}

func (m *model) setSealsBack(s *keyring.State) string {
	to := m.rng.Int64N(modelMaxSeals)
	if m.rng.IntN(8) == 0 {
		to = 1 << 40
	} else if m.rng.IntN(2) == 0 {
		to = 0
	}
	for i := range s.DataKeys {
		s.DataKeys[i].SealsReserved = to
	}
	return fmt.Sprintf("%d seals are reserved of each data key", to)
}

func (m *model) removeWraps(s *keyring.State) string {
	k := m.anyKey(s)
	if len(k.Wraps) > 0 {
		i := m.rng.IntN(len(k.Wraps))
		k.Wraps = slices.Delete(k.Wraps, i, i+1)
	}
	return fmt.Sprintf("%s has %d wraps", short(k.ID), len(k.Wraps))
}

func (m *model) removeKEK(s *keyring.State) string {
	key := m.anyKEK().key()
	for i := range s.DataKeys {
		k := &s.DataKeys[i]
		k.Wraps = slices.DeleteFunc(k.Wraps, func(w core.WrappedKey) bool { return w.KEKID.Key() == key })
	}
	return "no wraps under " + key
}

// plant inserts a data key of the attacker's, who may make it the primary.
func (m *model) plant(s *keyring.State, id envelope.KeyID, version int64, wraps ...core.WrappedKey) string {
	s.DataKeys = append(s.DataKeys, keyring.DataKeyState{ID: id, Version: version, State: keyring.Enabled, Wraps: wraps})
	primary := m.rng.IntN(2) == 0
	if primary {
		setPrimary(s, id)
	}
	return fmt.Sprintf("%s planted, version %d, primary %v, %d wraps", short(id), version, primary, len(wraps))
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func (m *model) plantGarbage(s *keyring.State) string {
	wraps := make([]core.WrappedKey, 1+m.rng.IntN(3))
	for i := range wraps {
		wraps[i] = core.WrappedKey{KEKID: m.anyKEK().kekID(), Wrapped: randomBytes(60)}
	}
	return "garbage: " + m.plant(s, envelope.KeyID(randomBytes(16)), m.aboveAll(s), wraps...)
}

// attackersKey returns a data key that the attacker knows.
func (m *model) attackersKey(via ...*modelKMS) (id envelope.KeyID, plaintext []byte) {
	plaintext = randomBytes(core.DataKeySize)
	key, err := envelope.NewKey(plaintext)
	if err != nil {
		panic(err)
	}
	m.planted[key.ID()] = via
	return key.ID(), plaintext
}

// plantForeign plants a data key of another store, which has the same KEKs.
func (m *model) plantForeign(s *keyring.State) string {
	id, plaintext := m.attackersKey()
	version := m.aboveAll(s)
	var wraps []core.WrappedKey
	for _, k := range m.keks {
		wraps = append(wraps, k.seal(plaintext, core.WrapAAD(otherStoreID, strconv.FormatInt(version, 10))))
	}
	return "of another store: " + m.plant(s, id, version, wraps...)
}

// plantKnown plants a data key that is wrapped under a KEK that leaked, or under the
// public half of a recovery KEK.
func (m *model) plantKnown(s *keyring.State) string {
	var held []*modelKMS
	for _, k := range m.keks {
		if k.leaked || m.isRecovery(k) {
			held = append(held, k)
		}
	}
	if len(held) == 0 {
		return "nothing"
	}
	kms := held[m.rng.IntN(len(held))]
	id, plaintext := m.attackersKey(kms)
	version := m.aboveAll(s)
	return "under " + kms.key() + ": " + m.plant(s, id, version, kms.seal(plaintext, core.WrapAAD(s.StoreID, strconv.FormatInt(version, 10))))
}

// plantWrap puts other bytes in the place of a wrap, or adds one.
func (m *model) plantWrap(s *keyring.State) string {
	k, other := m.anyKey(s), m.anyKey(s)
	if p := s.Primary(); p != nil && m.rng.IntN(2) == 0 {
		k = p
	}
	w := core.WrappedKey{KEKID: m.anyKEK().kekID(), Wrapped: randomBytes(60)}
	if len(other.Wraps) > 0 && m.rng.IntN(2) == 0 {
		w = other.Wraps[m.rng.IntN(len(other.Wraps))]
	}
	if len(k.Wraps) > 0 && m.rng.IntN(2) == 0 {
		w.KEKID = k.Wraps[m.rng.IntN(len(k.Wraps))].KEKID
	}
	k.Wraps = append(slices.DeleteFunc(k.Wraps, func(o core.WrappedKey) bool { return o.KEKID == w.KEKID }), w)
	return fmt.Sprintf("%s has another wrap under %s", short(k.ID), w.KEKID)
}

func (m *model) swapStore(s *keyring.State) string {
	s.StoreID = []string{modelStoreID, modelStoreID, otherStoreID, ""}[m.rng.IntN(4)]
	return "the store is " + strconv.Quote(s.StoreID)
}

func (m *model) restoreSnapshot(s *keyring.State) string {
	if len(m.snapshots) == 0 {
		return "nothing"
	}
	i := m.rng.IntN(len(m.snapshots))
	*s = cloneState(&m.snapshots[i])
	return fmt.Sprintf("snapshot %d of %d data keys restored", i, len(s.DataKeys))
}

// editCompromised empties the list, shortens it, or names another KEK.
func (m *model) editCompromised(s *keyring.State) string {
	switch {
	case m.rng.IntN(5) == 0:
		s.Compromised = append(slices.Clone(s.Compromised), m.anyKEK().key())
	case len(s.Compromised) > 0 && m.rng.IntN(2) == 0:
		s.Compromised = slices.Clone(s.Compromised[1:])
	default:
		s.Compromised = nil
	}
	return fmt.Sprintf("compromised are %v", s.Compromised)
}

// editPrimaries makes two data keys the primary, or none.
func (m *model) editPrimaries(s *keyring.State) string {
	if m.rng.IntN(2) == 0 {
		setPrimary(s, envelope.KeyID{})
		return "no primary"
	}
	k := m.anyKey(s)
	k.Primary = true
	return short(k.ID) + " is a primary too"
}

func (m *model) editState(s *keyring.State) string {
	k := m.anyKey(s)
	if k.State == keyring.Enabled {
		k.State = keyring.Destroyed
	} else {
		k.State = keyring.Enabled
	}
	return fmt.Sprintf("%s is %s", short(k.ID), k.State)
}

func (m *model) removeRow(s *keyring.State) string {
	i := m.rng.IntN(len(s.DataKeys))
	id := s.DataKeys[i].ID
	s.DataKeys = slices.Delete(s.DataKeys, i, i+1)
	return short(id) + " has no row"
}

// copyRow gives a data key a second row, or the name of another.
func (m *model) copyRow(s *keyring.State) string {
	k := *m.anyKey(s)
	k.Wraps = slices.Clone(k.Wraps)
	k.Primary = m.rng.IntN(2) == 0
	if m.rng.IntN(2) == 0 {
		k.Version = m.aboveAll(s)
	}
	if m.rng.IntN(2) == 0 {
		k.ID = m.anyKey(s).ID
	}
	m.rewound[k.ID] = true // either row may be counted in
	i := m.rng.IntN(len(s.DataKeys) + 1)
	s.DataKeys = slices.Insert(s.DataKeys, i, k)
	return fmt.Sprintf("%s has another row, version %d, primary %v", short(k.ID), k.Version, k.Primary)
}

func cloneState(s *keyring.State) keyring.State {
	state := *s
	state.Compromised = slices.Clone(state.Compromised)
	state.DataKeys = slices.Clone(state.DataKeys)
	for i := range state.DataKeys {
		state.DataKeys[i].Wraps = slices.Clone(state.DataKeys[i].Wraps)
	}
	return state
}

// hide takes the primary out of what a ring loads, while it cannot make another, and then
// brings it back with fewer seals reserved.
func (m *model) hide() {
	p := m.ring()
	m.burst(p)
	var hidden keyring.DataKeyState
	m.edit(func(s *keyring.State) string {
		i := slices.IndexFunc(s.DataKeys, func(k keyring.DataKeyState) bool { return k.Primary })
		if i < 0 {
			return "nothing"
		}
		hidden = s.DataKeys[i]
		s.DataKeys = slices.Delete(s.DataKeys, i, i+1)
		return short(hidden.ID) + " is hidden"
	})
	if hidden.ID.IsZero() {
		return
	}
	p.current.script(func(s *scriptedKMS) { s.err = core.ErrUnavailable })
	_ = p.ring.Reload(m.t.Context())
	m.heal(p.current)
	hidden.SealsReserved = m.rng.Int64N(hidden.SealsReserved + 1)
	m.edit(func(s *keyring.State) string {
		s.DataKeys = append(slices.DeleteFunc(s.DataKeys, func(k keyring.DataKeyState) bool { return k.ID == hidden.ID }), hidden)
		setPrimary(s, hidden.ID)
		return fmt.Sprintf("%s is back, with %d seals reserved", short(hidden.ID), hidden.SealsReserved)
	})
	_ = p.ring.Reload(m.t.Context())
	m.burst(p)
}

// lose removes the wraps of a data key but for those of recovery KEKs. Once a ring has
// recovered it, it is made the primary, and another ring starts.
func (m *model) lose() {
	var lost envelope.KeyID
	m.edit(func(s *keyring.State) string {
		k := m.anyKey(s)
		lost = k.ID
		k.Wraps = slices.DeleteFunc(k.Wraps, func(w core.WrappedKey) bool {
			return !slices.ContainsFunc(m.recovery, func(r *modelKMS) bool { return r.key() == w.KEKID.Key() })
		})
		return fmt.Sprintf("%s is lost, with %d wraps under recovery KEKs", short(lost), len(k.Wraps))
	})
	m.call("recovers", m.recover)
	m.edit(func(s *keyring.State) string {
		setPrimary(s, lost)
		return short(lost) + " is the primary"
	})
	m.restart(m.rng.IntN(len(m.rings)))
}

// storm makes old data keys the primary, again and again.
func (m *model) storm() {
	p := m.ring()
	for range 2 * modelRolls {
		m.edit(m.makePrimaryAgain)
		_ = p.ring.Reload(m.t.Context())
	}
}

// makeUpInstances writes rows about instances that do not exist, or removes them.
func (m *model) makeUpInstances() {
	var madeUp []keyring.LiveInstance
	for range m.rng.IntN(3) {
		madeUp = append(madeUp, keyring.LiveInstance{Name: "made up", KEKIDs: []core.KEKID{m.anyKEK().kekID()}})
	}
	m.do("attack: made-up instances use %v", madeUp)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.madeUp = madeUp
}
