// Package fleet is how the instances that share a store know of each other. Each
// keeps a row in the database and renews it: which KEKs it can use, a hash of
// its configuration, its version. An operator sees from any one of them which
// run with another key, and rotation asks it before something is written that
// one of them could not open. It exists because a key that must be equal on all
// instances, and is checked by nothing, is how most of these systems fail.
package fleet

import (
	"context"
	"fmt"
	"slices"
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

// Instance is one running instance. Nothing in it is secret, and whoever can write to the
// database says what stands there.
type Instance struct {
	ID         core.Text    // random, new at every start
	Hostname   core.Text    // where it runs, for an operator to find it
	KEKIDs     []core.KEKID // the KEKs it can use, its current one first; none while its key is missing
	State      core.Text    // the ring's state in a word, such as "ready" or "mismatch", and what else it sees
	ConfigHash core.Text    // hash of its configuration without its secrets
	Version    core.Text    // of the binary
	// WritesLegacy says that it seals in upstream's format.
	WritesLegacy bool
	StartedAt    time.Time // the time of the database at the first beat
	LastSeen     time.Time // the time of the database at the last beat
	Live         bool      // whether LastSeen is within LiveWindow
}

// Name names the instance for an operator: its ID and where it runs.
func (i *Instance) Name() string { return fmt.Sprintf("%s on %s", i.ID, i.Hostname) }

// CanUse reports whether the instance can use the key of id, whatever its
// version.
func (i *Instance) CanUse(id core.KEKID) bool {
	return slices.ContainsFunc(i.KEKIDs, func(has core.KEKID) bool { return has.Key() == id.Key() })
}

// Drift says, for an operator, how the live instances differ where they should
// not: in the KEKs that they can use, in their configuration, in what they write,
// in their version. It is empty for a fleet that is of one mind.
func Drift(instances []Instance) []string {
	var first *Instance
	var drift []string
	for _, i := range instances {
		switch {
		case !i.Live:
		case first == nil:
			first = &i
		default:
			drift = append(drift, i.differsFrom(first)...)
		}
	}
	return drift
}

func (i *Instance) differsFrom(o *Instance) []string {
	var found []string
	add := func(what string) {
		found = append(found, "instance "+i.Name()+" and instance "+o.Name()+" "+what)
	}
	if len(i.KEKIDs) > 0 && len(o.KEKIDs) > 0 && i.KEKIDs[0].Key() != o.KEKIDs[0].Key() {
		add(fmt.Sprintf("wrap under different keys: %s, %s", i.KEKIDs[0], o.KEKIDs[0]))
	}
	if (len(i.KEKIDs) > 0) != (len(o.KEKIDs) > 0) {
		add("do not both have a key")
	}
	if i.WritesLegacy != o.WritesLegacy {
		add("write different formats (FOREST_EXECUTOR_WRITE_FORMAT)")
	}
	if i.ConfigHash != o.ConfigHash {
		add("are configured differently")
	}
	if i.Version != o.Version {
		add(fmt.Sprintf("run different versions: %s, %s", i.Version, o.Version))
	}
	return found
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
