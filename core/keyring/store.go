package keyring

import "github.com/lockwood-kms/lockwood/core/keyring/internal/keystate"

// Store keeps the ring. See its methods for what a store has to do.
type Store = keystate.Store

// What a Store holds.
type (
	// State is a ring as the store holds it.
	State = keystate.State
	// DataKeyState is one data key as the store holds it.
	DataKeyState = keystate.DataKeyState
	// KeyState is the state of a data key: Enabled or Destroyed.
	KeyState = keystate.KeyState
	// NewDataKey is a data key to be inserted as the primary.
	NewDataKey = keystate.NewDataKey
	// WrapID names a wrap: which data key, and under which KEK.
	WrapID = keystate.WrapID
)

// The states of a data key. There is no way back from destroyed.
const (
	Enabled   = keystate.Enabled
	Destroyed = keystate.Destroyed
)

// The bounds of what Store.LoadRing returns. Somebody who writes to the database
// could otherwise fill the memory of every instance.
const (
	MaxWraps     = keystate.MaxWraps     // lines: data keys, each as often as it is wrapped
	MaxWrapBytes = keystate.MaxWrapBytes // of all wraps together

	MaxCompromised = keystate.MaxCompromised // keys named compromised
)

// The sentinels of a Store, besides core.ErrStoreUnavailable, which any method
// returns while the database does not answer.
var (
	// ErrConflict means that another instance changed the ring first: load it
	// again and look what is there.
	ErrConflict = keystate.ErrConflict

	// ErrNotEnabled means that a data key is destroyed or not in the store, so
	// that nothing may be sealed, written or reserved under it.
	ErrNotEnabled = keystate.ErrNotEnabled

	// ErrInUse means that records are still sealed under a data key, which can
	// therefore not be destroyed.
	ErrInUse = keystate.ErrInUse

	// ErrOtherStore means that the database holds another store than Options.StoreID
	// names, or than the ring served before. It is core.ErrKeyMismatch too.
	ErrOtherStore = keystate.ErrOtherStore

	// ErrLegacyClosed means that the ring was told to write legacy records into a
	// store that refuses them.
	ErrLegacyClosed = keystate.ErrLegacyClosed
)
