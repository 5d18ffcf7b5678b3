package keyring_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

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
	_ = p.seal(ctx, plaintext)
}

// burst seals as much as a data key may, and more.
func (m *model) burst(p *process) {
	n := modelMaxSeals/2 + m.rng.IntN(modelMaxSeals)
	m.do("%s seals %d times", p.name, n)
	for range n {
		m.seal(p)
	}
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
	_, _, err := p.ring.Open(ctx, nil, record, aad)
	again := time.Now()
	if errors.Is(err, core.ErrInvalidCiphertext) && how == "an unknown data key" {
		_, _, err = p.ring.Open(ctx, nil, record, aad)
	}
	defer m.event()()
	switch {
	case err == nil || !isSentinel(err):
		m.violate("%s opened a record with %s: %v", p.name, how, err)
	case !time.Now().Equal(again):
		m.violate("%s looked again for a data key that the store does not have", p.name)
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
		if err := p.seal(ctx, plaintext); err != nil {
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

func (m *model) roll(ctx context.Context, p *process) error {
	return p.making(func() error { return p.ring.Roll(ctx) })
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
	err := p.making(func() error { _, err := p.ring.Recover(ctx, identities); return err })
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
