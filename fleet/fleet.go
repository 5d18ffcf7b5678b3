// Package fleet is how the instances that share a store know of each other. Each
// keeps a row in the database and renews it: which KEKs it can use, a hash of
// its configuration, its version. An operator sees from any one of them which
// run with another key, and rotation asks it before something is written that
// one of them could not open. It exists because a key that must be equal on all
// instances, and is checked by nothing, is how most of these systems fail.
package fleet

import (
	"context"
	"time"

	"github.com/lockwood-kms/lockwood/core"
)

const (
	// BeatInterval is how often an instance renews its row.
	BeatInterval = 10 * time.Second
	// LiveWindow is how long after its last beat an instance counts as live, by
	// the database's clock.
	LiveWindow = 30 * time.Second
)

// Instance is one running instance. Nothing in it is secret.
type Instance struct {
	ID         string       // random, new at every start
	Hostname   string       // where it runs, for an operator to find it
	KEKIDs     []core.KEKID // the KEKs it can use, its current one first; none while its key is missing
	State      string       // the ring's state in a word, such as "ready" or "mismatch"
	ConfigHash string       // hash of its configuration without its secrets
	Version    string       // of the binary
	StartedAt  time.Time    // the time of the database at the first beat
	LastSeen   time.Time    // the time of the database at the last beat
	Live       bool         // whether LastSeen is within LiveWindow
}

// Store keeps the rows. Every method returns core.ErrStoreUnavailable while the
// database does not answer.
type Store interface {
	// Beat writes or renews the row of i.ID; both times, and Live, are the
	// store's to set. It also removes rows not seen for a day.
	Beat(ctx context.Context, i Instance) error
	// Leave removes the row.
	Leave(ctx context.Context, id string) error
	// Instances returns all rows, live ones first, then by start. It is empty
	// where Lockwood's tables do not exist.
	Instances(ctx context.Context) ([]Instance, error)
}
