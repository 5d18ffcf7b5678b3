package keyring_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// moments is what a process knew when a call began.
type moments struct {
	tick, evicted int
	blocked       bool
	highest       int64
	foreign       bool
	closed        bool
}

func (p *process) now() moments {
	p.mu.Lock()
	defer p.mu.Unlock()
	return moments{p.tick, p.evicted(), p.blocked(), p.highest, p.foreign, p.closed}
}

// knew reports whether what is known since then was known at m.
func (m moments) knew(tick int) bool { return tick > 0 && tick <= m.tick }

// sealed judges a record that p sealed in a call that began at m.
func (p *process) sealed(m moments, record, plaintext []byte) {
	defer p.event()()
	id, _ := envelope.ParseHeader(record)
	p.seals[id]++
	p.used[id] = p.tick
	var proof boundKey
	for k, began := range p.sealProofs {
		if k.id == id && began > m.evicted {
			proof = k
		}
	}
	switch {
	case m.closed:
		p.violate("%s sealed after it was closed", p.name)
	case m.blocked && p.healthy < m.evicted:
		p.violate("%s sealed under %s after a denial", p.name, short(id))
	case m.foreign && p.foreign:
		p.violate("%s sealed under %s into another store", p.name, short(id))
	case proof.version == 0:
		p.violate("%s sealed under %s, which the current KEK was not seen to unwrap since #%d", p.name, short(id), m.evicted)
	case m.knew(p.superseded[id]):
		p.violate("%s sealed under %s, which it knows since #%d to be superseded", p.name, short(id), p.superseded[id])
	case proof.version < m.highest:
		p.violate("%s sealed under %s, version %d, and knows of version %d", p.name, short(id), proof.version, m.highest)
	case m.knew(p.compromised[p.current.key()]):
		p.violate("%s sealed under %s, and knows since #%d that its KEK %s is compromised", p.name, short(id), p.compromised[p.current.key()], p.current.key())
	case m.knew(p.lastAt) && !slices.ContainsFunc(p.last.DataKeys, func(k keyring.DataKeyState) bool {
		return boundKey{k.ID, k.Version} == proof && k.State == keyring.Enabled && k.Primary
	}):
		p.violate("%s sealed under %s, version %d, which is not the primary since #%d", p.name, short(id), proof.version, p.lastAt)
	case m.knew(p.lastAt) && p.loadedTime.Sub(p.lastTime) > 2*p.opts.PollInterval+modelSlack && !p.wrapped(id):
		p.violate("%s sealed under %s, which has no wrap under %s since #%d", p.name, short(id), p.current.key(), p.lastAt)
	case p.seals[id] > p.reserved[id]:
		p.violate("%s sealed %d times under %s, and reserved %d", p.name, p.seals[id], short(id), p.reserved[id])
	}
	if _, ok := p.made[id]; !ok && !p.excuses(id) && !p.endorsed[id] {
		p.violate("%s sealed under %s, which is the attacker's", p.name, short(id))
	}
	p.deposit(modelRow{slices.Clone(record), slices.Clone(plaintext), id, p.storeID})
}

// wrapped reports whether the last load showed a wrap of the data key under the current
// KEK of p.
func (p *process) wrapped(id envelope.KeyID) bool {
	k, _ := p.last.Find(id)
	return slices.ContainsFunc(k.Wraps, func(w core.WrappedKey) bool { return w.KEKID.Key() == p.current.key() })
}

// excuses reports whether p could not know of a data key that it is the attacker's,
// who holds a KEK that is configured and was not named compromised, or had p start on
// another store.
func (p *process) excuses(id envelope.KeyID) bool {
	return p.storeID != modelStoreID || slices.ContainsFunc(p.planted[id], func(kms *modelKMS) bool {
		return slices.Contains(p.configured(), kms) && (p.compromised[kms.key()] == 0 || p.compromised[kms.key()] > p.firstShown(id))
	})
}

func (p *process) firstShown(id envelope.KeyID) int {
	at := p.tick
	for k, tick := range p.shown {
		if k.id == id {
			at = min(at, tick)
		}
	}
	return at
}

// deposit stores a record if the store accepts it, in place of another if there are
// many. Only then it was acknowledged.
func (p *process) deposit(row modelRow) {
	state := p.db.snapshot()
	if _, ok := state.Find(row.key); !ok || state.StoreID != row.storeID {
		return
	}
	if len(p.rows) < modelRows {
		p.rows = append(p.rows, row)
		return
	}
	p.rows[p.delays.IntN(len(p.rows))] = row
}

// knownReserved returns how many seals of the data key p knows to be reserved.
func (p *process) knownReserved(id envelope.KeyID) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known[id]
}

// grants takes down that the store reserved n seals, or says so.
func (o *oracle) grants(id envelope.KeyID, n int64, lied bool) {
	defer o.event()()
	o.granted[id] += n
	o.rewound[id] = o.rewound[id] || lied
	if o.granted[id] > modelMaxSeals && !o.rewound[id] {
		o.violate("%d seals of %s are reserved", o.granted[id], short(id))
	}
	if k := honestKey(&o.honest, id); k != nil {
		k.SealsReserved = o.granted[id]
	}
}

// reserves takes down that p reserved n seals, and knew of so many when it asked.
func (p *process) reserves(id envelope.KeyID, n, knew int64) {
	defer p.event()()
	p.reserved[id] += n
	p.known[id] = max(p.known[id], knew+n)
	switch {
	case p.reserved[id] > modelMaxSeals:
		p.violate("%s reserved %d seals of %s", p.name, p.reserved[id], short(id))
	case knew+n > modelMaxSeals:
		p.violate("%s reserved %d seals of %s, of which it knew %d to be reserved", p.name, n, short(id), knew)
	}
}

// opened judges the answer to a call of Open that began at m.
func (p *process) opened(m moments, row *modelRow, got []byte, err error) {
	defer p.event()()
	if err != nil {
		if must := p.retains(m, row.key); must != "" && !errors.Is(err, core.ErrKeyMissing) {
			p.violate("%s does not open a record of %s, which %s: %v", p.name, short(row.key), must, err)
		}
		return
	}
	p.used[row.key] = p.tick
	proven := false
	for k, began := range p.proofs {
		proven = proven || k.id == row.key && began > m.evicted
	}
	switch {
	case !bytes.Equal(got, row.plaintext):
		p.violate("%s opened a record of %s to other bytes", p.name, short(row.key))
	case m.closed:
		p.violate("%s opened a record after it was closed", p.name)
	case m.blocked && p.healthy < m.evicted:
		p.violate("%s opened a record of %s after a denial", p.name, short(row.key))
	case !proven:
		p.violate("%s opened a record of %s, which no KEK was seen to unwrap since #%d", p.name, short(row.key), m.evicted)
	}
}

// retains says why p must have the data key named id in memory, if it must: it was used,
// no load has shown since then that it is gone, and the provider did not deny and was
// healthy within the outage budget.
func (p *process) retains(m moments, id envelope.KeyID) string {
	used := p.used[id]
	if !m.knew(used) || m.closed || p.closed || p.evicted() > used || p.outage > used || p.dropped[id] > used || time.Since(p.healthyAt) > p.opts.OutageBudget-modelSlack {
		return ""
	}
	return fmt.Sprintf("was in memory at #%d", used)
}

// modelSlack is how late a ring may notice that its outage budget is spent: the time of
// a few calls that hang.
const modelSlack = time.Minute

// check judges what p holds in memory now. Nothing is under way.
func (p *process) check() {
	s := p.ring.Status()
	held := s.Unlocked
	defer p.event()()
	switch {
	case held > s.Enabled && !p.closed:
		p.violate("%s holds %d data keys, and the store has %d", p.name, held, s.Enabled)
	case held == 0:
	case p.closed:
		p.violate("%s is closed and holds %d data keys", p.name, held)
	case p.blocked():
		p.violate("%s holds %d data keys after the denial at #%d", p.name, held, p.evicted())
	case !p.healthyAt.IsZero() && time.Since(p.healthyAt) > p.opts.OutageBudget+modelSlack:
		p.violate("%s holds %d data keys, %s after its provider was healthy", p.name, held, time.Since(p.healthyAt))
	}
}

// short is enough of a key ID to read a trace.
func short(id envelope.KeyID) string { return id.String()[:6] }
