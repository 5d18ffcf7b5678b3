package rotation

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/plain"
)

// BackupNeed is a key that opens records in a copy of the database from before a
// rotation.
type BackupNeed struct {
	KEKID   core.KEKID `json:"kek_id"` // "legacy" for the env keys of legacy records
	Records int64      `json:"records"`
	// Role is what the key is to the store now: "old", "compromised", or "recovery" for
	// one that opens the copy besides the others.
	Role KeyRole `json:"role"`
	// Configured says of an old key that it is configured here and answers. One that is
	// not may be lost.
	Configured bool `json:"configured"`
	// EnvKeys are the env keys that are configured, for legacy records.
	EnvKeys []core.KEKID `json:"env_key_ids,omitempty"`
}

// KeyRole is what a key is to a store.
type KeyRole string

// The roles of a key that opens a copy of the database from before.
const (
	OldKey         KeyRole = "old"
	CompromisedKey KeyRole = "compromised"
	RecoveryKey    KeyRole = "recovery"
)

// legacyKEK stands for the env keys in a BackupNeed.
const legacyKEK core.KEKID = "legacy"

// envKeyPrefix begins the KEK IDs of env keys, which open legacy records too.
const envKeyPrefix = "envkey:"

// keys are the keys that a rotation knows, as of one moment.
type keys struct {
	current     core.KEKID
	recovery    []core.KEKID
	previous    []core.KEKID // that answer
	compromised []string     // by core.KEKID.Key
}

// keys asks the providers for their KEK IDs.
func (r *Rotator) keys(ctx context.Context, compromised []string) keys {
	s := r.ring.Status()
	k := keys{current: s.KEKID, recovery: s.RecoveryKEKIDs, compromised: compromised}
	for _, p := range r.previous {
		if s, err := p.Status(ctx); err == nil {
			k.previous = append(k.previous, s.KEKID)
		}
	}
	return k
}

// wanted reports whether the KEK is of the configuration that a rotation is to reach.
func (k *keys) wanted(id core.KEKID) bool { return id == k.current || slices.Contains(k.recovery, id) }

func (k *keys) configured(id core.KEKID) bool {
	return slices.ContainsFunc(append([]core.KEKID{k.current}, k.previous...), func(has core.KEKID) bool { return has.Key() == id.Key() })
}

// envKeys are the KEK IDs of the env keys.
func (k *keys) envKeys() (ids []core.KEKID) {
	for _, id := range append([]core.KEKID{k.current}, k.previous...) {
		if strings.HasPrefix(string(id), envKeyPrefix) {
			ids = append(ids, id)
		}
	}
	return ids
}

// needOf is the need of the key, for no record yet.
func (k *keys) needOf(id core.KEKID) BackupNeed {
	need := BackupNeed{KEKID: id, Role: OldKey, Configured: k.configured(id)}
	switch {
	case id == legacyKEK:
		need.EnvKeys = k.envKeys()
		need.Configured = len(need.EnvKeys) > 0
	case slices.Contains(k.compromised, id.Key()):
		need.Role = CompromisedKey
	case slices.ContainsFunc(k.recovery, func(r core.KEKID) bool { return r.Key() == id.Key() }):
		need.Role = RecoveryKey
	}
	return need
}

// needs returns which keys open records in copies of the database from before the
// snapshot, other than the current one, and none if that one opens all of them. former
// are wraps that had been removed by then.
func (s *Snapshot) needs(former []Wrap, k *keys) []BackupNeed {
	var needs []BackupNeed
	add := func(id core.KEKID, n int64) {
		i := slices.IndexFunc(needs, func(b BackupNeed) bool { return b.KEKID == id })
		if i < 0 {
			i = len(needs)
			needs = append(needs, k.needOf(id))
		}
		needs[i].Records += n
	}
	for _, d := range s.DataKeys {
		ids := slices.Clone(d.KEKIDs)
		for _, w := range former {
			if w.KeyID == d.KeyID && !slices.Contains(ids, w.KEKID) {
				ids = append(ids, w.KEKID)
			}
		}
		for _, id := range ids {
			if d.Records > 0 && id != k.current {
				add(id, d.Records)
			}
		}
	}
	if s.Legacy > 0 {
		add(legacyKEK, s.Legacy)
	}
	if !slices.ContainsFunc(needs, func(b BackupNeed) bool { return b.Role != RecoveryKey }) {
		return nil
	}
	return needs
}

// words says what of a copy from before opens with the key, and what to do with both.
func (b BackupNeed) words() string {
	const keep = "keep that key for as long as you keep such backups, and guard both"
	opens := func(what string) string {
		return plain.Count(b.Records, "record in it opens", "records in it open") + " with " + what
	}
	switch {
	case b.KEKID == legacyKEK && len(b.EnvKeys) > 0:
		return opens("the env key alone ("+joined(b.EnvKeys)+"), as legacy records do") + "; " + keep
	case b.KEKID == legacyKEK:
		return opens("the env key alone, as legacy records do, and none is configured here") + "; " + keep
	case b.Role == CompromisedKey:
		return opens(fmt.Sprintf("the compromised key %s", b.KEKID)) + "; destroy such backups, since whoever has that key reads them"
	case b.Role == RecoveryKey:
		return opens(fmt.Sprintf("the recovery key %s as well", b.KEKID))
	case !b.Configured:
		return opens(fmt.Sprintf("the old key %s", b.KEKID)) + ", which is not configured here or does not answer; unless it is lost, " + keep
	}
	return opens(fmt.Sprintf("the old key %s", b.KEKID)) + "; " + keep
}

// PrintNeeds says, for people, what copies of the database from before now need.
func PrintNeeds(w io.Writer, needs []BackupNeed) {
	for _, b := range needs {
		plain.Fprintf(w, "A backup from before now: %s.\n", plain.Prose(b.words()))
	}
}
