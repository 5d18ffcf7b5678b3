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
	fickle bool // the store takes back the data keys that are inserted
	quiet  bool // nothing is probed

	mu       sync.Mutex
	tick     int        // counts events, so that of two it is known which came first
	calls    int64      // to providers and store
	delays   *rand.Rand // of the calls
	keks     []*modelKMS
	rings    []*process
	madeUp   []keyring.LiveInstance // instances that do not exist
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

func first[K comparable](m map[K]int, key K, tick int) {
	if m[key] == 0 {
		m[key] = tick
	}
}

// unwraps takes down the answer to a call of UnwrapDataKey that began then.
func (p *process) unwraps(kms *modelKMS, began int, w core.WrappedKey, aad core.AAD, plaintext []byte, err error) {
	defer p.event()()
	if w.KEKID.Key() != kms.key() && !kms.unwrapsFor[w.KEKID.Key()] {
		p.violate("%s asks %s to unwrap what is under %s", p.name, kms.key(), w.KEKID)
	}
	wrap := wrapText(w)
	switch {
	case errors.Is(err, core.ErrInvalidCiphertext):
		p.refuses(kms, began, wrap, aad.Map()["store"]+" "+aad.Map()["version"])
	case err == nil:
		version, _ := strconv.ParseInt(strings.TrimSuffix(aad.Map()["version"], " recovered"), 10, 64)
		if kms == p.current {
			p.unwrapped[wrap] = true
			if p.healthyAt.IsZero() {
				p.healthyAt = time.Now()
			}
		}
		p.proves(kms, began, plaintext, aad.Map()["store"], version, strings.HasSuffix(aad.Map()["version"], " recovered"), p.wraps[wrap])
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
	storeID := aad.Map()["store"]
	version, _ := strconv.ParseInt(aad.Map()["version"], 10, 64)
	if key, err := envelope.NewKey(plaintext); err == nil {
		p.made[key.ID()] = madeKey{slices.Clone(plaintext), storeID, version}
	}
	p.proves(kms, began, plaintext, storeID, version, false, nil)
}

// proves takes down what plaintext proves. The store may say that the wrap is of several
// data keys, which named are: a ring that asked for another one than it gets takes nothing
// from the answer, and need not know that this one exists.
func (p *process) proves(kms *modelKMS, began int, plaintext []byte, storeID string, version int64, recovered bool, named []envelope.KeyID) {
	key, err := envelope.NewKey(plaintext)
	if err != nil || storeID != p.storeID {
		return
	}
	k := boundKey{key.ID(), version}
	p.proofs[k] = max(p.proofs[k], began)
	p.plain[k] = p.plain[k] || !recovered
	if kms == p.current && !recovered {
		p.sealProofs[k] = max(p.sealProofs[k], began)
	}
	p.sure[k] = p.sure[k] || !slices.ContainsFunc(named, func(id envelope.KeyID) bool { return id != k.id })
	p.learn(k)
}

// status takes down the answer to a call of Status that began then. A denial that another
// answer overtook is an old one.
func (p *process) status(kms *modelKMS, began int, err error) {
	defer p.event()()
	switch {
	case kms != p.current:
	case err == nil:
		if time.Since(p.healthyAt) > p.opts.OutageBudget-modelSlack {
			p.outage = p.tick
		}
		p.healthy, p.healthyAt = p.tick, time.Now()
	case errors.Is(err, core.ErrKeyDenied) && p.healthy < began:
		p.evictions = append(p.evictions, p.tick)
	}
}

// adds judges wraps that p writes for the data key named id.
func (p *process) adds(id envelope.KeyID, wraps ...core.WrappedKey) {
	for _, w := range wraps {
		if at := p.compromised[w.KEKID.Key()]; at > 0 && p.recovering == 0 {
			p.violate("%s wraps %s under %s, which it knows since #%d to be compromised", p.name, short(id), w.KEKID, at)
		}
		if !slices.ContainsFunc(slices.Concat(p.configured(), p.recovery), func(k *modelKMS) bool {
			return k.key() == w.KEKID.Key() || k.unwrapsFor[w.KEKID.Key()]
		}) {
			p.violate("%s wraps %s under %s, which is not configured", p.name, short(id), w.KEKID)
		}
	}
}

// inserts takes down that p made the data key k the primary.
func (p *process) inserts(k keyring.NewDataKey) {
	defer p.event()()
	p.note("%s makes %s, version %d, in place of %s", p.name, short(k.ID), k.Version, short(k.Replaces))
	if !p.current.anew && !slices.ContainsFunc(k.Wraps, func(w core.WrappedKey) bool { return p.genuine(k.ID, w) }) {
		p.violate("%s makes %s, which no KEK unwraps", p.name, short(k.ID))
	}
	p.adds(k.ID, k.Wraps...)
	p.protects(k)
	p.paces()
	if p.storeID == modelStoreID {
		for i := range p.honest.DataKeys {
			p.honest.DataKeys[i].Primary = false
		}
		p.honest.DataKeys = append(p.honest.DataKeys, keyring.DataKeyState{
			ID: k.ID, Version: k.Version, State: keyring.Enabled, Primary: true, CreatedAt: time.Now(), Wraps: slices.Clone(k.Wraps),
		})
	}
}

// refuses judges that p asked to unwrap what does not unwrap, in a call that began then.
// It does so once an hour for each data key whose wrap the store says that it is, or for
// each of the rows of one that has many. Whether
// the wrap of the primary unwraps is asked with each status, that of any key before it is
// pruned, and that of one that p stored when it reads it back.
func (p *process) refuses(kms *modelKMS, began int, wrap, binding string) {
	if kms == p.current && (p.primaryWrap[wrap] || p.stored[wrap] || p.pruning > 0) {
		return
	}
	key := wrap + "\x00" + binding
	p.refused[key] = slices.DeleteFunc(p.refused[key], func(r refused) bool { return time.Since(r.at) > time.Hour-modelSlack })
	tries := 0
	for _, r := range p.refused[key] {
		if r.ended < began {
			tries++
		}
	}
	if tries >= max(1, len(p.wraps[wrap])+p.copies[wrap]-1) {
		p.violate("%s has %s unwrap again %x of %s, which did not unwrap as %s %s ago", p.name, kms.name, wrap[len(wrap)-4:], p.wraps[wrap], binding, time.Since(p.refused[key][0].at))
	}
	p.refused[key] = append(p.refused[key], refused{p.tick, time.Now()})
}

// protects judges under which KEKs p wrapped a new data key: under each recovery KEK, and
// under those that a ring needs which has run for a while.
func (p *process) protects(k keyring.NewDataKey) {
	var needed []*modelKMS
	needed = append(needed, p.recovery...)
	for _, other := range p.rings {
		if other != nil && !other.closed && time.Since(other.started) > modelSlack && slices.Contains(p.previous, other.current) {
			needed = append(needed, other.current)
		}
	}
	for _, kms := range append(needed, p.current) {
		wrapped := slices.ContainsFunc(k.Wraps, func(w core.WrappedKey) bool { return w.KEKID.Key() == kms.key() })
		if !wrapped && p.compromised[kms.key()] == 0 && len(kms.unwrapsFor) == 0 {
			p.violate("%s makes %s, which is not wrapped under %s", p.name, short(k.ID), kms.key())
		}
	}
}

// modelRolls is how many primaries a ring makes at once because of what the store holds.
// Then it makes one a minute.
const modelRolls = 16

// paces judges how often p made a primary because of what the store holds.
func (p *process) paces() {
	if p.makings > 0 {
		return
	}
	p.rolls = append(p.rolls, time.Now())
	for i, at := range p.rolls {
		// What was begun first may end first, or last.
		if n, since := len(p.rolls)-i, time.Since(at); float64(n) > modelRolls+(since+modelSlack/2).Minutes() {
			p.violate("%s made %d primaries in %s", p.name, n, since)
		}
	}
}
