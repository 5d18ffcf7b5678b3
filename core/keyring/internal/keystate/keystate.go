// Package keystate is a ring as a store holds it, and what a ring wants of a store.
// It is part of package keyring, which names all of it for others.
package keystate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
)

// The sentinels of a Store, besides core.ErrStoreUnavailable, which any method
// returns while the database does not answer.
var (
	// ErrConflict means that another instance changed the ring first: load it
	// again and look what is there.
	ErrConflict = errors.New("the ring was changed by another instance")

	// ErrNotEnabled means that a data key is destroyed or not in the store, so
	// that nothing may be sealed, written or reserved under it.
	ErrNotEnabled = errors.New("the data key is not enabled")

	// ErrInUse means that records are still sealed under a data key, which can
	// therefore not be destroyed.
	ErrInUse = errors.New("records are still sealed under the data key")

	// ErrOtherStore means that the database holds another store than the ring is to
	// serve, or served before. It is core.ErrKeyMismatch too.
	ErrOtherStore = fmt.Errorf("the database holds another store: %w", core.ErrKeyMismatch)

	// ErrLegacyClosed means that the ring was told to write legacy records into a
	// store that refuses them.
	ErrLegacyClosed = errors.New("the store is closed to legacy records")
)

// KeyState is the state of a data key. The primary is an enabled key with the
// mark that it seals.
type KeyState string

// The states of a data key. There is no way back from destroyed.
const (
	Enabled   KeyState = "enabled"
	Destroyed KeyState = "destroyed"
)

// State is a ring as the store holds it.
type State struct {
	// StoreID identifies the store, and is bound into every wrap. It is empty
	// where Lockwood's tables do not exist.
	StoreID string
	// Revision is another one after every change of the rest of the state. It is empty
	// where the store keeps none.
	Revision string
	// LegacyClosed says that the store holds no legacy records and a database
	// constraint refuses them.
	LegacyClosed bool
	// Compromised names the keys (core.KEKID.Key) of KEKs that an operator named
	// compromised: no data key is wrapped under one any more. A ring remembers
	// what it has seen here for as long as it lives.
	Compromised []string
	// DataKeys is every data key ever made, by ascending version.
	DataKeys []DataKeyState

	exposed map[envelope.KeyID]bool // what the ring remembers of it
}

// Primary returns the data key that seals, or nil.
func (s *State) Primary() *DataKeyState {
	for i := range s.DataKeys {
		if s.DataKeys[i].Primary {
			return &s.DataKeys[i]
		}
	}
	return nil
}

// Find returns the enabled data key named id.
func (s *State) Find(id envelope.KeyID) (DataKeyState, bool) {
	for _, k := range s.DataKeys {
		if k.ID == id && k.State == Enabled {
			return k, true
		}
	}
	return DataKeyState{}, false
}

// EnabledKeys returns the enabled data keys, by ascending version.
func (s *State) EnabledKeys() []DataKeyState {
	var keys []DataKeyState
	for _, k := range s.DataKeys {
		if k.State == Enabled {
			keys = append(keys, k)
		}
	}
	return keys
}

// IsCompromised reports whether the key of id was named compromised.
func (s *State) IsCompromised(id core.KEKID) bool {
	return id != "" && slices.Contains(s.Compromised, id.Key())
}

// RememberExposed says which data keys are exposed whatever their wraps tell now.
func (s *State) RememberExposed(keys map[envelope.KeyID]bool) { s.exposed = keys }

// Exposed reports whether k is known to whoever holds a KEK that was named
// compromised, as its wraps tell, or told a running ring before. The primary is
// rolled for it, and no wrap is added.
func (s *State) Exposed(k *DataKeyState) bool {
	return s.exposed[k.ID] || slices.ContainsFunc(k.Wraps, func(w core.WrappedKey) bool { return s.IsCompromised(w.KEKID) })
}

// DataKeyState is one data key as the store holds it.
type DataKeyState struct {
	ID      envelope.KeyID
	Version int64 // unique in the store, from 1, never reused
	State   KeyState
	Primary bool
	// SealsReserved is how many of envelope.MaxSeals instances have taken.
	SealsReserved int64
	CreatedAt     time.Time
	DestroyedAt   time.Time // zero unless destroyed
	// Wraps is the data key wrapped under each KEK; none if destroyed.
	Wraps []core.WrappedKey
}

// WrappedUnder reports whether k has a wrap under exactly this KEK ID.
func (k *DataKeyState) WrappedUnder(id core.KEKID) bool {
	_, ok := k.WrapUnder(id)
	return ok
}

// WrapUnder returns k's wrap under exactly this KEK ID.
func (k *DataKeyState) WrapUnder(id core.KEKID) (core.WrappedKey, bool) {
	i := slices.IndexFunc(k.Wraps, func(w core.WrappedKey) bool { return w.KEKID == id })
	if i < 0 {
		return core.WrappedKey{}, false
	}
	return k.Wraps[i], true
}

// WrapID names a wrap: which data key, and under which KEK.
type WrapID struct {
	DataKey envelope.KeyID
	KEKID   core.KEKID
}

// NewDataKey is a data key to be inserted as the primary.
type NewDataKey struct {
	ID      envelope.KeyID
	Version int64
	// Replaces is the primary that the caller saw, zero if it saw none.
	Replaces envelope.KeyID
	Wraps    []core.WrappedKey // at least one
}

// The bounds of what LoadRing returns. Somebody who writes to the database could
// otherwise fill the memory of every instance.
const (
	MaxWraps     = 10_000   // data keys and wraps: keys, each as often as it is wrapped
	MaxWrapBytes = 16 << 20 // of all wraps together

	// MaxCompromised bounds State.Compromised. An operator names one or two.
	MaxCompromised = 1000
)

// Store keeps the ring. Implementations are safe for concurrent use by many
// instances; whoever can write to the database is not trusted by the ring, so a
// Store need not defend against that. Methods may return
// core.ErrStoreUnavailable besides what they document.
type Store interface {
	// LoadRing returns the ring. It writes nothing and, where Lockwood's tables
	// do not exist, returns the zero State. It returns core.ErrUnavailable, and
	// has not read it all, if the ring is beyond MaxWraps, MaxWrapBytes or
	// MaxCompromised.
	LoadRing(ctx context.Context) (State, error)

	// Revision returns State.Revision as LoadRing would, for much less work: a ring asks
	// for it every few seconds.
	Revision(ctx context.Context) (string, error)

	// InsertDataKey makes k the primary and its predecessor an ordinary enabled
	// key, in one transaction. It returns ErrConflict, and changes nothing, if
	// k.Replaces is not the primary (zero: if there is one), or if the ID or the
	// version exists.
	InsertDataKey(ctx context.Context, k NewDataKey) error

	// AddWrap stores a further wrap of the data key. It replaces one under
	// exactly the same KEK ID, so the caller has seen the new one unwrap where
	// there is one, and touches no other. It returns ErrNotEnabled for a key that
	// is not enabled.
	AddWrap(ctx context.Context, id envelope.KeyID, wrap core.WrappedKey) error

	// RemoveWraps deletes the wraps of the data key under exactly these KEK IDs,
	// and leaves those that are not there. It never deletes the last wrap of an
	// enabled data key: it then changes nothing and returns ErrConflict. It
	// returns ErrNotEnabled for a key that is not enabled, and
	// core.ErrOutcomeUnknown if the wraps may be gone all the same.
	RemoveWraps(ctx context.Context, id envelope.KeyID, kekIDs []core.KEKID) error

	// NameCompromised adds keys to State.Compromised, where they are not yet.
	NameCompromised(ctx context.Context, keys []string) error

	// ReserveSeals takes n seals out of the key's budget for this instance. ok is
	// false, and nothing is taken, if more than limit would be reserved then. It
	// returns ErrNotEnabled for a key that is not enabled.
	ReserveSeals(ctx context.Context, id envelope.KeyID, n, limit int64) (ok bool, err error)

	// DestroyDataKey deletes the key's wraps and marks it destroyed, if no record
	// is sealed under it, in one transaction that excludes writers of such
	// records (see credential.Store). Otherwise it changes nothing and returns
	// how many records remain, with ErrInUse. It returns ErrConflict for the
	// primary, ErrNotEnabled for a key that is not enabled, and
	// core.ErrOutcomeUnknown if the key may be destroyed all the same.
	DestroyDataKey(ctx context.Context, id envelope.KeyID) (remaining int64, err error)

	// DestroyUnused is DestroyDataKey for those of the data keys that are enabled, not
	// the primary, and not in use, in one transaction that reads the records once for
	// all. It returns which it destroyed; the others are left as they are. After
	// core.ErrOutcomeUnknown those that it returns may be destroyed.
	DestroyUnused(ctx context.Context, ids []envelope.KeyID) (destroyed []envelope.KeyID, err error)

	// LegacySample returns up to n records that do not start with the magic of
	// format 1, from any column, and none if there are none.
	LegacySample(ctx context.Context, n int) ([][]byte, error)
}
