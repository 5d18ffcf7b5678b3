package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/fleet"
)

// blockers returns why the rotation should not begin.
func (r *Rotator) blockers(ctx context.Context, opts RotateOptions) ([]string, error) {
	instances, err := r.store.Instances(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking which instances are live: %w", err)
	}
	state, err := r.store.LoadRing(ctx)
	if err != nil {
		return nil, err
	}
	found := r.unknownKEKs(ctx, &state, opts.Compromised)
	kekID := r.ring.Status().KEKID
	for _, i := range instances {
		switch {
		case !i.Live:
		case opts.Compromised && len(i.KEKIDs) > 0 && i.CanUse(kekID) && i.KEKIDs[0].Key() != kekID.Key():
			found = append(found, fmt.Sprintf("instance %s still has %s as its current key, and would seal nothing once that is named compromised: "+
				"make it a previous one there, restart it, and try again", i.Name(), i.KEKIDs[0]))
		case len(i.KEKIDs) == 0 && i.State != "missing":
			found = append(found, fmt.Sprintf("instance %s has not said which KEKs it can use (its state is %q): see what it logs, and try again", i.Name(), i.State))
		case len(i.KEKIDs) > 0 && !i.CanUse(kekID):
			found = append(found, fmt.Sprintf("instance %s cannot use %s: configure it as this command is, restart it, and try again "+
				"(one that was killed counts as live for %s)", i.Name(), kekID, fleet.LiveWindow))
		case opts.Reseal && i.WritesLegacy:
			found = append(found, fmt.Sprintf("instance %s writes legacy records (FOREST_EXECUTOR_WRITE_FORMAT=legacy), so that re-sealing would not end", i.Name()))
		}
	}
	if opts.Detach && !slices.ContainsFunc(instances, func(i fleet.Instance) bool { return i.Live }) {
		found = append(found, "no instance is live that would seal the records anew: start one, or say --wait")
	}
	if opts.Reseal && r.writesLegacy {
		found = append(found, "FOREST_EXECUTOR_WRITE_FORMAT=legacy is set here: unset it, or use lockwood credentials reseal --to-legacy")
	}
	return found, nil
}

// unknownKEKs says which KEKs wrap the primary data key and are not configured here.
// To go on without knowing them could remove a recovery wrap, or make a data key that
// lacks one. After a leak, a previous key that was disabled already does not say which
// it is: then those that are not known are taken for it, as previousKeys does.
func (r *Rotator) unknownKEKs(ctx context.Context, state *keyring.State, compromised bool) (found []string) {
	p := state.Primary()
	if p == nil {
		return nil
	}
	_ = r.ring.RefreshRecovery(ctx) // of one that does not answer nothing is known
	status := r.ring.Status()
	known := append([]core.KEKID{status.KEKID}, status.RecoveryKEKIDs...)
	for _, p := range r.previous {
		s, err := p.Status(ctx)
		switch {
		case err == nil:
			known = append(known, s.KEKID)
		case compromised && errors.Is(err, core.ErrKeyDenied):
			return nil
		}
	}
	for _, w := range p.Wraps {
		configured := slices.ContainsFunc(known, func(id core.KEKID) bool { return id.Key() == w.KEKID.Key() })
		if !configured && !slices.Contains(state.Compromised, w.KEKID.Key()) {
			found = append(found, fmt.Sprintf("the primary data key is wrapped under %s, which is not configured here or does not answer: "+
				"name it as a recovery key, to keep it, or as a previous one, to leave it behind", w.KEKID))
		}
	}
	return found
}

// blocked is the error for what was found.
func blocked(found []string) error {
	return fmt.Errorf("%w: %s (--force goes on all the same)", ErrBlocked, strings.Join(found, "; "))
}

// begin names what is compromised, and returns the report of an equal rotation
// that was not finished, or a new one, which is saved.
func (r *Rotator) begin(ctx context.Context, opts RotateOptions) (*Report, error) {
	state, snap, err := r.look(ctx)
	if err != nil {
		return nil, err
	}
	var named []string
	if opts.Compromised {
		if named, err = r.nameCompromised(ctx, state); err != nil {
			return nil, err
		}
	}
	last, err := r.LastReport(ctx)
	if err != nil {
		return nil, err
	}
	kekID := r.ring.Status().KEKID
	if last != nil && last.State == "running" && last.KEKID == kekID && last.Reseal == opts.Reseal && slices.Equal(last.Compromised, named) {
		last.Notes = nil
		return last, nil
	}
	report := &Report{State: "running", StartedAt: time.Now().UTC(), Reseal: opts.Reseal, Compromised: named, KEKID: kekID, Before: snap}
	if report.Former, err = r.formerWraps(ctx, &snap); err != nil {
		return nil, err
	}
	return report, r.save(ctx, report)
}

// formerWraps returns the wraps that are known to have been removed of data keys that
// the snapshot still has: those that the last report names, and those that were there when
// the last rotation began and are not any more. It may have been cut off after it removed
// them and before it noted that.
func (r *Rotator) formerWraps(ctx context.Context, s *Snapshot) ([]Wrap, error) {
	last, err := r.LastReport(ctx)
	if err != nil || last == nil {
		return nil, err
	}
	return s.stillEnabled(slices.Concat(last.Former, last.Pruned, s.lacking(&last.Before))), nil
}

// nameCompromised names the keys of the previous providers compromised.
func (r *Rotator) nameCompromised(ctx context.Context, state *keyring.State) ([]string, error) {
	keys, found, err := r.compromisable(ctx, state)
	if err != nil {
		return nil, err
	}
	if len(found) > 0 {
		return nil, fmt.Errorf("%w: %s", ErrBlocked, strings.Join(found, "; "))
	}
	if err := r.store.NameCompromised(ctx, keys); err != nil {
		return nil, fmt.Errorf("naming keys compromised: %w", err)
	}
	return keys, r.ring.Reload(ctx)
}

// compromisable returns the keys that would be named compromised, and what stands
// against it.
func (r *Rotator) compromisable(ctx context.Context, state *keyring.State) (keys, found []string, err error) {
	if keys, err = r.previousKeys(ctx, state); err != nil {
		return nil, nil, err
	}
	if len(keys) == 0 {
		found = append(found, "no previous key is configured; make the new key the current one, the compromised one a previous one, and try again")
	}
	if len(keys) > mostNamed {
		found = append(found, fmt.Sprintf("the data keys are wrapped under %d keys that are not configured here, and a previous key that does not say which it is may be any of them; "+
			"enable it for the time of the rotation, so that it alone is named compromised", len(keys)))
	}
	for _, id := range r.ring.Status().RecoveryKEKIDs {
		if slices.Contains(keys, id.Key()) {
			found = append(found, fmt.Sprintf("%s is a previous key, which would be named compromised, and a recovery key; "+
				"take it out of FOREST_EXECUTOR_RECOVERY_KEY_PROVIDERS on every instance, and try again", core.Text(id.Key())))
		}
	}
	return keys, found, nil
}

// mostNamed bounds how many keys are named compromised at once, which is for good. Whoever
// writes to the database can plant wraps under any number.
const mostNamed = 32

// previousKeys returns the keys of the previous providers, sorted. One that was
// disabled already, as one does with a key that leaked, does not say which it is:
// then all keys are taken for it that wrap a data key and are not in use otherwise.
func (r *Rotator) previousKeys(ctx context.Context, state *keyring.State) (keys []string, err error) {
	status := r.ring.Status()
	add := func(id core.KEKID) {
		key := id.Key()
		if key != status.KEKID.Key() && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	for _, p := range r.previous {
		s, err := p.Status(ctx)
		switch {
		case err == nil:
			add(s.KEKID)
		case errors.Is(err, core.ErrKeyDenied):
			for _, id := range wrappedUnder(state) {
				if !slices.ContainsFunc(status.RecoveryKEKIDs, func(r core.KEKID) bool { return r.Key() == id.Key() }) {
					add(id)
				}
			}
		default:
			return nil, fmt.Errorf("asking a previous provider for its KEK ID: %w", err)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

// wrappedUnder returns the KEKs that wrap an enabled data key.
func wrappedUnder(state *keyring.State) (ids []core.KEKID) {
	for _, k := range state.DataKeys {
		for _, w := range k.Wraps {
			if k.State == keyring.Enabled {
				ids = append(ids, w.KEKID)
			}
		}
	}
	return ids
}
