package keyring_test

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// process is what one ring may know, from its start to its end.
type process struct {
	*oracle
	name                string
	ring                *keyring.Ring
	opts                keyring.Options
	current             *modelKMS
	previous            []*modelKMS
	recovery            []*modelKMS
	started             time.Time
	recovering          int         // calls of Recover under way
	pruning, pruneBegan int         // calls of Prune under way, and when the first began
	makings             int         // calls under way that make a primary because somebody said so
	rolls               []time.Time // when it made a primary because of what the store held
	logged              []string    // what it logged last

	closed      bool
	storeID     string                       // of the first store that it saw
	foreign     bool                         // the last load showed another store
	last        keyring.State                // that a load showed
	lastAt      int                          // since when
	lastTime    time.Time                    // the same
	loadedTime  time.Time                    // when the last load ended
	loaded      int                          // when the last load that it took up ended
	shown       map[boundKey]int             // what loads showed, since when
	superseded  map[envelope.KeyID]int       // or set back, since when it knows
	replaced    []envelope.KeyID             // those that it made another the primary of, until it loads again
	compromised map[string]int               // keys of KEKs, since when it knows
	wrappedBy   map[envelope.KeyID][]string  // keys of KEKs that a load showed a wrap under
	exposedAt   map[envelope.KeyID]time.Time // when it knew
	reserved    map[envelope.KeyID]int64     // by this process
	known       map[envelope.KeyID]int64     // seals that it knows to be reserved, by anyone
	seals       map[envelope.KeyID]int64
	proofs      map[boundKey]int  // when a call began that proved it, by any KEK
	sealProofs  map[boundKey]int  // the same, by the current KEK and not as recovered
	plain       map[boundKey]bool // those that were proven, and not as recovered
	sure        map[boundKey]bool // those that were proven, by what the store said is theirs alone
	unwrapped   map[string]bool   // wraps that the current provider was seen to unwrap
	highest     int64             // the newest version that was proven and shown
	evictions   []int             // when the provider denied
	healthy     int               // when it was last healthy
	healthyAt   time.Time
	outage      int                         // when an outage ended that its budget may not have covered
	used        map[envelope.KeyID]int      // when a record was last sealed or opened under it
	dropped     map[envelope.KeyID]int      // when a load did not show it
	wraps       map[string][]envelope.KeyID // whose wrap the store said that it is
	copies      map[string]int              // in how many rows at once
	stored      map[string]bool             // wraps that it stored itself
	primaryWrap map[string]bool             // wraps of what the store said is the primary
	refused     map[string][]refused        // by wrap and what it is bound to, the attempts that failed
}

// refused is an attempt to unwrap what does not unwrap.
type refused struct {
	ended int
	at    time.Time
}

// boundKey is a data key and the version that it is bound to, or has by the store.
type boundKey struct {
	id      envelope.KeyID
	version int64
}

func newProcess(o *oracle, name string) *process {
	return &process{
		oracle: o, name: name,
		shown: make(map[boundKey]int), superseded: make(map[envelope.KeyID]int), compromised: make(map[string]int),
		wrappedBy: make(map[envelope.KeyID][]string), reserved: make(map[envelope.KeyID]int64), known: make(map[envelope.KeyID]int64),
		seals: make(map[envelope.KeyID]int64), proofs: make(map[boundKey]int), sealProofs: make(map[boundKey]int),
		plain: make(map[boundKey]bool), sure: make(map[boundKey]bool), unwrapped: make(map[string]bool), used: make(map[envelope.KeyID]int), dropped: make(map[envelope.KeyID]int), exposedAt: make(map[envelope.KeyID]time.Time),
		wraps: make(map[string][]envelope.KeyID), copies: make(map[string]int), stored: make(map[string]bool), primaryWrap: make(map[string]bool), refused: make(map[string][]refused),
	}
}

// learn updates the newest version that p knows to exist.
func (p *process) learn(k boundKey) {
	if p.shown[k] > 0 && p.sure[k] {
		p.highest = max(p.highest, k.version)
	}
}

func (p *process) evicted() int {
	if len(p.evictions) == 0 {
		return 0
	}
	return p.evictions[len(p.evictions)-1]
}

// blocked reports whether the provider denied and was not healthy since then.
func (p *process) blocked() bool { return p.evicted() > p.healthy }

// exposed reports whether p knows that the holder of a compromised KEK has the data key.
func (p *process) exposed(id envelope.KeyID) bool {
	return slices.ContainsFunc(p.wrappedBy[id], func(key string) bool { return p.compromised[key] > 0 })
}

// modelRewrap is how long a ring may go on with a rewrap that it began before it knew
// that the data key is exposed.
const modelRewrap = 2 * time.Minute

// configured returns the providers that p may unwrap with.
func (p *process) configured() []*modelKMS { return append([]*modelKMS{p.current}, p.previous...) }

// knownOfPrimary returns the data key that the last load showed as the primary, or none,
// and how many seals of it p knows to be reserved.
func (p *process) knownOfPrimary() (id envelope.KeyID, reserved int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := p.last.Primary(); k != nil {
		id = k.ID
	}
	return id, p.known[id]
}

// loads takes down what a load showed, before which p knew that so many seals of the
// primary were reserved.
func (p *process) loads(state *keyring.State, primary envelope.KeyID, reserved int64) {
	defer p.event()()
	if p.storeID == "" {
		p.storeID = state.StoreID
	}
	if p.foreign = state.StoreID != p.storeID; p.foreign {
		return
	}
	p.loaded, p.loadedTime = p.tick, time.Now()
	for _, id := range p.replaced {
		first(p.superseded, id, p.tick)
	}
	p.replaced = nil
	if k := state.Primary(); k != nil && k.State == keyring.Enabled && k.ID == primary && k.SealsReserved < reserved {
		first(p.superseded, k.ID, p.tick) // the store was set back
	}
	for id := range p.used {
		if _, ok := state.Find(id); !ok {
			p.dropped[id] = p.tick
		}
	}
	if !same(&p.last, state) {
		p.last, p.lastAt, p.lastTime = *state, p.tick, time.Now()
		p.learns(state)
	}
}

// same reports whether two loads showed the same of what counts.
func same(a, b *keyring.State) bool {
	return a.StoreID == b.StoreID && slices.Equal(a.Compromised, b.Compromised) && slices.EqualFunc(a.DataKeys, b.DataKeys, func(a, b keyring.DataKeyState) bool {
		return a.ID == b.ID && a.Version == b.Version && a.State == b.State && a.Primary == b.Primary && a.SealsReserved == b.SealsReserved &&
			slices.EqualFunc(a.Wraps, b.Wraps, func(a, b core.WrappedKey) bool { return a.KEKID == b.KEKID && bytes.Equal(a.Wrapped, b.Wrapped) })
	})
}

// learns takes down what a load showed that the one before did not.
func (p *process) learns(state *keyring.State) {
	for _, key := range state.Compromised {
		first(p.compromised, key, p.tick)
	}
	if k := state.Primary(); k != nil {
		for _, w := range k.Wraps {
			p.primaryWrap[wrapText(w)] = true
		}
	}
	copies := make(map[string]int)
	for _, k := range state.EnabledKeys() {
		bound := boundKey{k.ID, k.Version}
		first(p.shown, bound, p.tick)
		p.learn(bound)
		if !k.Primary {
			first(p.superseded, k.ID, p.tick)
		}
		for _, w := range k.Wraps {
			text := wrapText(w)
			if !slices.Contains(p.wraps[text], k.ID) {
				p.wraps[text] = append(p.wraps[text], k.ID)
			}
			copies[text]++
			p.copies[text] = max(p.copies[text], copies[text])
			if !slices.Contains(p.wrappedBy[k.ID], w.KEKID.Key()) {
				p.wrappedBy[k.ID] = append(p.wrappedBy[k.ID], w.KEKID.Key())
			}
		}
		p.known[k.ID] = max(p.known[k.ID], k.SealsReserved)
	}
	for id := range p.wrappedBy {
		if p.exposedAt[id].IsZero() && p.exposed(id) {
			p.exposedAt[id] = time.Now()
		}
	}
}

// wrapText identifies a wrap.
func wrapText(w core.WrappedKey) string { return string(w.KEKID) + string(w.Wrapped) }

// making runs a call that makes a primary because somebody said so.
func (p *process) making(call func() error) error {
	p.mu.Lock()
	p.makings++
	p.mu.Unlock()
	err := call()
	defer p.event()()
	p.makings--
	return err
}

// seal seals plaintext, and judges the record.
func (p *process) seal(ctx context.Context, plaintext []byte) error {
	before := p.now()
	record, err := p.ring.Seal(ctx, nil, plaintext, modelAAD)
	if err == nil {
		p.sealed(before, record, plaintext)
		return nil
	}
	if !isSentinel(err) {
		defer p.event()()
		p.violate("%s: Seal = %v", p.name, err)
	}
	return err
}

// probe seals, and opens, while the ring is in the middle of something: a promise is not
// broken for a moment either. Its caller gave up before, so that it waits for nothing.
func (p *process) probe() {
	p.mu.Lock()
	skip := p.quiet || p.delays.IntN(4) > 0
	var row modelRow
	if len(p.rows) > 0 {
		row = p.rows[p.delays.IntN(len(p.rows))]
	}
	p.mu.Unlock()
	if skip {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = p.seal(ctx, []byte("probe"))
	if row.record == nil {
		return
	}
	before := p.now()
	if got, _, err := p.ring.Open(ctx, nil, row.record, modelAAD); err == nil {
		p.opened(before, &row, got, nil)
	}
}
