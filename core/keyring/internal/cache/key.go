package cache

import (
	"sync/atomic"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
)

// Proof is what was proven of a data key when it was unwrapped: its wrap is bound to
// all of it. What the database says later changes nothing of it.
type Proof struct {
	StoreID string
	Version int64
	// KEK is the one that unwrapped it. Current says that the current provider has
	// it, without which nothing is sealed under the data key.
	KEK     core.KEKID
	Current bool
	// Recovered says that recovery restored the data key. Whoever held the public
	// half of a recovery KEK may have made it, so it opens and never seals.
	Recovered bool
}

func (p *Proof) seals() bool { return p.Current && !p.Recovered }

// Names reports whether the data key is of this store, in which it has this version.
func (p *Proof) Names(storeID string, version int64) bool {
	return p.StoreID == storeID && p.Version == version
}

// Key is a data key in memory. It is safe for concurrent use.
type Key struct {
	Proof Proof
	key   *envelope.Key

	// left is what is left of the seals that this instance has reserved. Reserving
	// before sealing makes the bound of NIST SP 800-38D section 8.3 hold across
	// instances and crashes: a block that a crash loses counts as used.
	left atomic.Int64
}

// NewKey returns the data key of the given bytes, which it does not keep.
func NewKey(dataKey []byte, proof Proof) (*Key, error) {
	key, err := envelope.NewKey(dataKey)
	if err != nil {
		return nil, err
	}
	return Adopt(key, proof), nil
}

// ID returns the key ID.
func (k *Key) ID() envelope.KeyID { return k.key.ID() }

// Seal appends the record of plaintext to dst, if a reserved seal is left.
func (k *Key) Seal(dst, plaintext, aad []byte) (record []byte, ok bool) {
	if k.left.Add(-1) < 0 {
		return dst, false
	}
	return k.key.Seal(dst, plaintext, aad), true
}

// Take takes n reserved seals for SealTaken, and reports whether so many were left. What
// is left of fewer is given up, so that no seal is ever counted twice.
func (k *Key) Take(n int64) bool { return k.left.Add(-n) >= 0 }

// SealTaken is Seal with a seal that was taken before.
func (k *Key) SealTaken(dst, plaintext, aad []byte) []byte { return k.key.Seal(dst, plaintext, aad) }

// Spent reports whether no reserved seal is left.
func (k *Key) Spent() bool { return k.left.Load() <= 0 }

// Refill makes n seals what is left.
func (k *Key) Refill(n int64) { k.left.Store(n) }

// Adopt returns the data key that was made as key.
func Adopt(key *envelope.Key, proof Proof) *Key { return &Key{Proof: proof, key: key} }
