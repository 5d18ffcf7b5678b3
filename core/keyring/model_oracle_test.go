package keyring_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// oracle is the truth of the model, kept apart from the rings. It sees each answer of
// a provider and of the store on its way to a ring, so it knows what each process may
// know and when it learned it. It knows the data keys themselves.
type oracle struct {
	db     *memoryStore
	lavish bool // the store grants seals without counting them

	mu       sync.Mutex
	tick     int        // counts events, so that of two it is known which came first
	calls    int64      // to providers and store
	delays   *rand.Rand // of the calls
	keks     []*modelKMS
	made     map[envelope.KeyID]madeKey
	planted  map[envelope.KeyID][]*modelKMS // data keys of the attacker, and the KEKs that they hold
	endorsed map[envelope.KeyID]bool        // data keys of the attacker that a ring wrapped which could not know
	honest   keyring.State                  // what the store would hold had nobody edited it
	granted  map[envelope.KeyID]int64       // seals that all processes reserved
	rewound  map[envelope.KeyID]bool        // the store has forgotten reservations of the key
	hostile  int                            // when the store was last edited, or a KEK made anew
	rows     []modelRow                     // the records that were acknowledged
	trace    []string
	broken   string // the first promise that was seen broken
}

// madeKey is a data key that a ring made.
type madeKey struct {
	plaintext []byte
	storeID   string
	version   int64
}

// modelRow is a record that was stored, and what it must open to.
type modelRow struct {
	record, plaintext []byte
	key               envelope.KeyID
	storeID           string
}

const (
	modelStoreID  = "store-1"
	otherStoreID  = "store-2"
	modelMaxSeals = 64
	modelRows     = 24
)

func (o *oracle) note(format string, args ...any) {
	o.trace = append(o.trace, fmt.Sprintf("%s #%d ", time.Now().Format("02 15:04:05.000"), o.tick)+fmt.Sprintf(format, args...))
	if len(o.trace) > 400 {
		o.trace = slices.Clone(o.trace[200:])
	}
}

// violate says that a promise is broken.
func (o *oracle) violate(format string, args ...any) {
	if o.broken == "" {
		o.broken = fmt.Sprintf(format, args...)
	}
	o.note("BROKEN: "+format, args...)
}

// event begins an event: o.mu is held until the function that it returns is called.
func (o *oracle) event() (end func()) {
	o.mu.Lock()
	o.tick++
	return o.mu.Unlock
}

// kek returns the provider whose key has that name, or nil.
func (o *oracle) kek(key string) *modelKMS {
	i := slices.IndexFunc(o.keks, func(k *modelKMS) bool { return k.key() == key })
	if i < 0 {
		return nil
	}
	return o.keks[i]
}

// genuine reports whether w unwraps to the data key named id, now, and is bound to its
// store and version.
func (o *oracle) genuine(id envelope.KeyID, w core.WrappedKey) bool {
	truth, ok := o.made[id]
	kms := o.kek(w.KEKID.Key())
	if !ok || kms == nil {
		return false
	}
	version := strconv.FormatInt(truth.version, 10)
	for _, v := range []string{version, version + " recovered"} {
		if plaintext, ok := kms.opens(w, core.WrapAAD(truth.storeID, v)); ok && bytes.Equal(plaintext, truth.plaintext) {
			return true
		}
	}
	return false
}

// process is what one ring may know, from its start to its end.
type process struct {
	*oracle
	name                string
	ring                *keyring.Ring
	opts                keyring.Options
	current             *modelKMS
	previous            []*modelKMS
	recovery            []*modelKMS
	recovering          int      // calls of Recover under way
	pruning, pruneBegan int      // calls of Prune under way, and when the first began
	logged              []string // what it logged last

	closed      bool
	storeID     string                       // of the first store that it saw
	foreign     bool                         // the last load showed another store
	loaded      int                          // when the last load that it took up ended
	shown       map[boundKey]int             // what loads showed, since when
	superseded  map[envelope.KeyID]int       // since when it knows
	replaced    []envelope.KeyID             // those that it made another the primary of, until it loads again
	compromised map[string]int               // keys of KEKs, since when it knows
	wrappedBy   map[envelope.KeyID][]string  // keys of KEKs that a load showed a wrap under
	exposedAt   map[envelope.KeyID]time.Time // when it knew
	reserved    map[envelope.KeyID]int64     // by this process
	known       map[envelope.KeyID]int64     // seals that it knows to be reserved, by anyone
	seals       map[envelope.KeyID]int64
	proofs      map[boundKey]int // when a call began that proved it, by any KEK
	sealProofs  map[boundKey]int // the same, by the current KEK and not as recovered
	unwrapped   map[string]bool  // wraps that the current provider was seen to unwrap
	highest     int64            // the newest version that was proven and shown
	evictions   []int            // when the provider denied
	healthy     int              // when it was last healthy
	healthyAt   time.Time
	outage      int                    // when an outage ended that its budget may not have covered
	used        map[envelope.KeyID]int // when a record was last sealed or opened under it
	dropped     map[envelope.KeyID]int // when a load did not show it
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
		unwrapped: make(map[string]bool), used: make(map[envelope.KeyID]int), dropped: make(map[envelope.KeyID]int), exposedAt: make(map[envelope.KeyID]time.Time),
	}
}

// learn updates the newest version that p knows to exist.
func (p *process) learn(k boundKey) {
	if p.shown[k] > 0 && p.proofs[k] > 0 {
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

// loads takes down what a load showed.
func (p *process) loads(state *keyring.State) {
	defer p.event()()
	if p.storeID == "" {
		p.storeID = state.StoreID
	}
	if p.foreign = state.StoreID != p.storeID; p.foreign {
		return
	}
	p.loaded = p.tick
	for _, id := range p.replaced {
		first(p.superseded, id, p.tick)
	}
	p.replaced = nil
	defer func() {
		for id := range p.wrappedBy {
			if p.exposedAt[id].IsZero() && p.exposed(id) {
				p.exposedAt[id] = time.Now()
			}
		}
	}()
	for _, key := range state.Compromised {
		first(p.compromised, key, p.tick)
	}
	for id := range p.used {
		if _, ok := state.Find(id); !ok {
			p.dropped[id] = p.tick
		}
	}
	for _, k := range state.EnabledKeys() {
		bound := boundKey{k.ID, k.Version}
		first(p.shown, bound, p.tick)
		p.learn(bound)
		if !k.Primary {
			first(p.superseded, k.ID, p.tick)
		}
		for _, w := range k.Wraps {
			if !slices.Contains(p.wrappedBy[k.ID], w.KEKID.Key()) {
				p.wrappedBy[k.ID] = append(p.wrappedBy[k.ID], w.KEKID.Key())
			}
		}
		p.known[k.ID] = max(p.known[k.ID], k.SealsReserved)
	}
}

func first[K comparable](m map[K]int, key K, tick int) {
	if m[key] == 0 {
		m[key] = tick
	}
}

// unwraps takes down the answer to a call of UnwrapDataKey that began then.
func (p *process) unwraps(kms *modelKMS, began int, w core.WrappedKey, aad core.AAD, plaintext []byte, err error) {
	defer p.event()()
	if w.KEKID.Key() != kms.key() {
		p.violate("%s asks %s to unwrap what is under %s", p.name, kms.key(), w.KEKID)
	}
	wrap := string(w.KEKID) + string(w.Wrapped)
	switch {
	case err == nil:
		version, _ := strconv.ParseInt(strings.TrimSuffix(aad.Map()["version"], " recovered"), 10, 64)
		if kms == p.current {
			p.unwrapped[wrap] = true
			if p.healthyAt.IsZero() {
				p.healthyAt = time.Now()
			}
		}
		p.proves(kms, began, plaintext, aad.Map()["store"], version, strings.HasSuffix(aad.Map()["version"], " recovered"))
	case kms == p.current && errors.Is(err, core.ErrKeyDenied):
		p.note("%s: %s denies an unwrap", p.name, kms.name)
		if p.unwrapped[wrap] {
			p.evictions = append(p.evictions, p.tick)
		}
	}
}

// generates takes down the answer to a call of GenerateDataKey that began then.
func (p *process) generates(kms *modelKMS, began int, aad core.AAD, plaintext []byte) {
	defer p.event()()
	version, _ := strconv.ParseInt(aad.Map()["version"], 10, 64)
	p.proves(kms, began, plaintext, aad.Map()["store"], version, false)
}

func (p *process) proves(kms *modelKMS, began int, plaintext []byte, storeID string, version int64, recovered bool) {
	key, err := envelope.NewKey(plaintext)
	if err != nil || storeID != p.storeID {
		return
	}
	k := boundKey{key.ID(), version}
	p.proofs[k] = max(p.proofs[k], began)
	if kms == p.current && !recovered {
		p.sealProofs[k] = max(p.sealProofs[k], began)
	}
	p.learn(k)
}

// status takes down the answer to a call of Status.
func (p *process) status(kms *modelKMS, err error) {
	defer p.event()()
	switch {
	case kms != p.current:
	case err == nil:
		if time.Since(p.healthyAt) > p.opts.OutageBudget-modelSlack {
			p.outage = p.tick
		}
		p.healthy, p.healthyAt = p.tick, time.Now()
	case errors.Is(err, core.ErrKeyDenied):
		p.evictions = append(p.evictions, p.tick)
	}
}

// adds judges wraps that p writes for the data key named id.
func (p *process) adds(id envelope.KeyID, wraps ...core.WrappedKey) {
	for _, w := range wraps {
		if at := p.compromised[w.KEKID.Key()]; at > 0 && p.recovering == 0 {
			p.violate("%s wraps %s under %s, which it knows since #%d to be compromised", p.name, short(id), w.KEKID, at)
		}
		if kms := p.kek(w.KEKID.Key()); kms == nil {
			p.violate("%s stores a wrap of %s under %s, which nobody has", p.name, short(id), w.KEKID)
		}
	}
}

// inserts takes down that p made the data key k the primary.
func (p *process) inserts(k keyring.NewDataKey) {
	defer p.event()()
	var truth madeKey
	for _, kms := range p.configured() {
		for _, w := range k.Wraps {
			if plaintext, ok := kms.opens(w, core.WrapAAD(p.storeID, strconv.FormatInt(k.Version, 10))); ok && w.KEKID.Key() == kms.key() {
				truth = madeKey{plaintext, p.storeID, k.Version}
			}
		}
	}
	p.note("%s makes %s, version %d, in place of %s", p.name, short(k.ID), k.Version, short(k.Replaces))
	if truth.plaintext != nil {
		p.made[k.ID] = truth
	}
	p.adds(k.ID, k.Wraps...)
	if p.storeID == modelStoreID {
		for i := range p.honest.DataKeys {
			p.honest.DataKeys[i].Primary = false
		}
		p.honest.DataKeys = append(p.honest.DataKeys, keyring.DataKeyState{
			ID: k.ID, Version: k.Version, State: keyring.Enabled, Primary: true, CreatedAt: time.Now(), Wraps: slices.Clone(k.Wraps),
		})
	}
}

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
	case m.knew(p.loaded) && p.shown[proof] == 0:
		p.violate("%s sealed under %s, which is bound to version %d, and the store never said so", p.name, short(id), proof.version)
	case p.seals[id] > p.reserved[id]:
		p.violate("%s sealed %d times under %s, and reserved %d", p.name, p.seals[id], short(id), p.reserved[id])
	}
	if _, ok := p.made[id]; !ok && !p.excuses(id) && !p.endorsed[id] {
		p.violate("%s sealed under %s, which is the attacker's", p.name, short(id))
	}
	p.deposit(modelRow{slices.Clone(record), slices.Clone(plaintext), id, p.storeID})
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

// reserves takes down that p reserved n seals, and knew of so many when it asked.
func (p *process) reserves(id envelope.KeyID, n, knew int64) {
	defer p.event()()
	p.reserved[id] += n
	p.known[id] += n
	p.granted[id] += n
	if p.lavish {
		p.rewound[id] = true
	}
	switch {
	case knew+n > modelMaxSeals:
		p.violate("%s reserved %d seals of %s, of which it knew %d to be reserved", p.name, n, short(id), knew)
	case p.granted[id] > modelMaxSeals && !p.rewound[id]:
		p.violate("%d seals of %s are reserved", p.granted[id], short(id))
	}
	for i := range p.honest.DataKeys {
		if k := &p.honest.DataKeys[i]; k.ID == id {
			k.SealsReserved = p.granted[id]
		}
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
	if used == 0 || m.closed || p.closed || p.evicted() > used || p.outage > used || p.dropped[id] > used || time.Since(p.healthyAt) > p.opts.OutageBudget-modelSlack {
		return ""
	}
	return fmt.Sprintf("was in memory at #%d", used)
}

// modelSlack is how late a ring may notice that its outage budget is spent: the time of
// a few calls that hang.
const modelSlack = time.Minute

// check judges what p holds in memory now. Nothing is under way.
func (p *process) check() {
	held := p.ring.Status().Unlocked
	defer p.event()()
	switch {
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
