package rotation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/fleet"
)

// ErrBlocked means that a rotation would leave a live instance, or the store, worse
// off than before, so that it did not begin. The text says whom and why.
var ErrBlocked = errors.New("the rotation did not begin")

// Stores is what a Rotator needs of the database; store.Store is one.
type Stores interface {
	Store
	keyring.Store
	credential.Store
	fleet.Store
}

// Rotator rotates the keys of one store to what the ring is configured for. It is
// safe for concurrent use by many instances.
type Rotator struct {
	ring            *keyring.Ring
	store           Stores
	credentialStore credential.Store
	credentials     *credential.Service
	resealer        *Resealer
	previous        []core.KeyProvider
	writesLegacy    bool
}

// NewRotator returns a rotator. previous are the ring's previous providers, which
// are what RotateOptions.Compromised names; writesLegacy says that the ring seals
// legacy records.
func NewRotator(ring *keyring.Ring, store Stores, credentials *credential.Service, resealer *Resealer, previous []core.KeyProvider, writesLegacy bool) *Rotator {
	return &Rotator{
		ring: ring, store: store, credentialStore: store, credentials: credentials,
		resealer: resealer, previous: previous, writesLegacy: writesLegacy,
	}
}

// RotateOptions are the choices of an operator. The zero value rewraps and prunes.
type RotateOptions struct {
	// Reseal rolls the primary data key, seals every record anew under it, and
	// destroys the data keys before it.
	Reseal bool
	// Compromised says that the previous keys are known to somebody: no data key is
	// wrapped under one any more, and those that were are not kept. It implies
	// Reseal.
	Compromised bool
	// Force begins although a live instance could not follow.
	Force bool
	// Detach leaves the re-seal to the instances that run: Rotate returns once it
	// has begun, and is to be called again to finish.
	Detach bool
	// MaxRate is how many rows are sealed anew in a second, over all instances;
	// zero is any.
	MaxRate int64
	// Progress is called from time to time while records are sealed anew.
	Progress func(Run)
}

// Rotate does everything that is missing for the store to depend on the ring's
// current KEK and its recovery KEKs alone, and returns what it did. It can be
// stopped anywhere and called again, and then goes on.
//
// It returns ErrBlocked, core's sentinels and core.ErrStoreUnavailable; the
// report, if not nil, is of what was done until then.
func (r *Rotator) Rotate(ctx context.Context, opts RotateOptions) (*Report, error) {
	opts.Reseal = opts.Reseal || opts.Compromised
	blockers, err := r.blockers(ctx, opts)
	if err != nil {
		return nil, err
	}
	if len(blockers) > 0 && !opts.Force {
		return nil, fmt.Errorf("%w: %s", ErrBlocked, strings.Join(blockers, "; "))
	}
	report, err := r.begin(ctx, opts)
	if err != nil {
		return nil, err
	}
	report.Notes = append(report.Notes, blockers...)
	if !opts.Compromised {
		added, err := r.ring.Rewrap(ctx)
		report.Rewrapped += len(added)
		if err != nil {
			return report, fmt.Errorf("wrapping the data keys under %s: %w", report.KEKID, err)
		}
	}
	if opts.Reseal {
		if err := r.renew(ctx, report, opts); err != nil || opts.Detach {
			return report, err
		}
	}
	if err := r.prune(ctx, report); err != nil {
		return report, err
	}
	return report, r.finish(ctx, report)
}

// blockers returns why the rotation should not begin.
func (r *Rotator) blockers(ctx context.Context, opts RotateOptions) ([]string, error) {
	instances, err := r.store.Instances(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking which instances are live: %w", err)
	}
	var found []string
	kekID := r.ring.Status().KEKID
	for _, i := range instances {
		switch {
		case !i.Live:
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

// begin names what is compromised, and returns the report of an equal rotation
// that was not finished, or a new one, which is saved.
func (r *Rotator) begin(ctx context.Context, opts RotateOptions) (*Report, error) {
	var named []string
	if opts.Compromised {
		var err error
		if named, err = r.nameCompromised(ctx); err != nil {
			return nil, err
		}
	}
	_, snap, err := r.look(ctx)
	if err != nil {
		return nil, err
	}
	kekID := r.ring.Status().KEKID
	if last, err := r.LastReport(ctx); err != nil {
		return nil, err
	} else if last != nil && last.State == "running" && last.KEKID == kekID && last.Reseal == opts.Reseal && slices.Equal(last.Compromised, named) {
		last.Notes = nil
		return last, nil
	}
	report := &Report{State: "running", StartedAt: time.Now().UTC(), Reseal: opts.Reseal, Compromised: named, KEKID: kekID, Before: snap}
	return report, r.save(ctx, report)
}

// nameCompromised names the keys of the previous providers compromised.
func (r *Rotator) nameCompromised(ctx context.Context) ([]string, error) {
	current := r.ring.Status().KEKID.Key()
	var keys []string
	for _, p := range r.previous {
		s, err := p.Status(ctx)
		if err != nil {
			return nil, fmt.Errorf("asking a previous provider for its KEK ID: %w", err)
		}
		if key := s.KEKID.Key(); key != current && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%w: no previous key is configured; make the new key the current one, the compromised one a previous one, and try again", ErrBlocked)
	}
	slices.Sort(keys)
	if err := r.store.NameCompromised(ctx, keys); err != nil {
		return nil, fmt.Errorf("naming keys compromised: %w", err)
	}
	return keys, r.ring.Reload(ctx)
}

// look reads the store as it is now.
func (r *Rotator) look(ctx context.Context) (*keyring.State, Snapshot, error) {
	state, err := r.store.LoadRing(ctx)
	if err != nil {
		return nil, Snapshot{}, err
	}
	counts, err := r.store.Counts(ctx)
	if err != nil {
		return nil, Snapshot{}, err
	}
	return &state, snapshot(&state, &counts), nil
}

// renew rolls, re-seals, verifies and destroys.
func (r *Rotator) renew(ctx context.Context, report *Report, opts RotateOptions) error {
	if r.ring.Status().Primary.String() == report.Before.primary() {
		if err := r.ring.Roll(ctx); err != nil {
			return fmt.Errorf("rolling the ring: %w", err)
		}
	}
	resealed, err := r.Reseal(ctx, r.ring.Status().Primary, opts)
	if err != nil || opts.Detach {
		return err
	}
	report.Resealed = resealed.add(report.Resealed)
	if err := r.save(ctx, report); err != nil {
		return err
	}
	if report.Verified, err = r.credentials.Verify(ctx, nil); err != nil {
		return err
	}
	return r.destroyOld(ctx, report)
}

// add adds what an earlier attempt of the same rotation did.
func (r *Resealed) add(earlier *Resealed) *Resealed {
	if earlier != nil {
		r.Rows += earlier.Rows
		r.Skipped += earlier.Skipped
		r.Seconds += earlier.Seconds
	}
	return r
}

// Reseal seals every record anew that is stale to target, which is the ring's
// primary, or zero if the ring seals legacy records. It goes on with a run to the
// same target that has not ended. Records that do not open are named in what it
// returns, and left as they are.
func (r *Rotator) Reseal(ctx context.Context, target Target, opts RotateOptions) (*Resealed, error) {
	begun := time.Now()
	run, err := r.resealer.Begin(ctx, target, opts.MaxRate)
	if err != nil {
		return nil, err
	}
	if opts.Detach {
		return nil, r.resealer.Plan(ctx, run)
	}
	progress := opts.Progress
	if progress == nil {
		progress = func(Run) {}
	}
	if err := r.resealer.Wait(ctx, run, progress); err != nil {
		return nil, fmt.Errorf("sealing records anew: %w", err)
	}
	failed, err := r.resealer.Mop(ctx, run, progress)
	if err != nil {
		return nil, fmt.Errorf("sealing the last records anew: %w", err)
	}
	resealed := &Resealed{Failed: failed, Seconds: time.Since(begun).Seconds()}
	if run, ok, err := r.store.CurrentRun(ctx); err == nil && ok && run.Target == target {
		resealed.Rows, resealed.Skipped = run.Done, run.Skipped
	}
	return resealed, nil
}

// destroyAttempts bounds how often records that were sealed under an old data key
// in the meantime, by an instance that had not learnt of the new one, are sealed
// anew before an old data key is given up on.
const destroyAttempts = 10

// destroyOld destroys the data keys under which no record is left.
func (r *Rotator) destroyOld(ctx context.Context, report *Report) error {
	state, err := r.store.LoadRing(ctx)
	if err != nil {
		return err
	}
	for _, k := range state.DataKeys {
		if k.State != keyring.Enabled || k.Primary {
			continue
		}
		destroyed, err := r.destroy(ctx, k.ID)
		if err != nil {
			return fmt.Errorf("destroying data key %s: %w", k.ID, err)
		}
		if destroyed {
			report.Destroyed = append(report.Destroyed, k.ID.String())
		}
	}
	return r.save(ctx, report)
}

// destroy destroys one data key, and reports false if records that do not open
// are left under it.
func (r *Rotator) destroy(ctx context.Context, id envelope.KeyID) (bool, error) {
	for attempt := 1; ; attempt++ {
		_, err := r.ring.Destroy(ctx, id)
		switch {
		case err == nil, errors.Is(err, keyring.ErrNotEnabled):
			return true, nil
		case !errors.Is(err, keyring.ErrInUse):
			return false, err
		case attempt == destroyAttempts:
			return false, nil
		}
		again, err := r.Reseal(ctx, r.ring.Status().Primary, RotateOptions{})
		if err != nil {
			return false, err
		}
		if again.Rows == 0 {
			return false, nil // what is left does not open
		}
	}
}

// prune removes the wraps that nobody needs.
func (r *Rotator) prune(ctx context.Context, report *Report) error {
	pruned, err := r.Prune(ctx)
	report.Pruned = append(report.Pruned, pruned...)
	return err
}

// Prune removes the wraps that neither the configuration nor a live instance
// needs, and returns them. The errors are those of keyring.Ring.Prune.
func (r *Rotator) Prune(ctx context.Context) ([]Wrap, error) {
	keep, err := r.stillNeeded(ctx)
	if err != nil {
		return nil, err
	}
	removed, err := r.ring.Prune(ctx, keep)
	var wraps []Wrap
	for _, w := range removed {
		wraps = append(wraps, Wrap{w.DataKey.String(), w.KEKID})
	}
	return wraps, err
}

// stillNeeded returns a function that reports whether a live instance can use a
// KEK, and cannot use the current one.
func (r *Rotator) stillNeeded(ctx context.Context) (func(core.KEKID) bool, error) {
	instances, err := r.store.Instances(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking which instances are live: %w", err)
	}
	current := r.ring.Status().KEKID
	return func(id core.KEKID) bool {
		return slices.ContainsFunc(instances, func(i fleet.Instance) bool {
			return i.Live && !i.CanUse(current) && i.CanUse(id)
		})
	}, nil
}

// wanted returns a function that reports whether a KEK ID is of the configuration.
func (r *Rotator) wanted() func(core.KEKID) bool {
	s := r.ring.Status()
	return func(id core.KEKID) bool { return id == s.KEKID || slices.Contains(s.RecoveryKEKIDs, id) }
}

// finish looks at the outcome and closes the report.
func (r *Rotator) finish(ctx context.Context, report *Report) error {
	var err error
	if _, report.After, err = r.look(ctx); err != nil {
		return err
	}
	report.State, report.EndedAt = "done", time.Now().UTC()
	report.conclude(r.wanted())
	return r.save(ctx, report)
}

func (r *Rotator) save(ctx context.Context, report *Report) error {
	text, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("saving report: %w", err)
	}
	return r.store.SaveReport(ctx, text)
}

// LastReport returns the report of the last rotation of the store, or nil.
func (r *Rotator) LastReport(ctx context.Context) (*Report, error) {
	text, err := r.store.LastReport(ctx)
	if err != nil || text == nil {
		return nil, err
	}
	report := new(Report)
	if err := json.Unmarshal(text, report); err != nil {
		return nil, nil //nolint:nilerr // whatever another version wrote there, this one begins anew
	}
	return report, nil
}
