package rotation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/fleet"
	"github.com/lockwood-kms/lockwood/internal/pause"
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
	// Reseal, and excludes Detach: until the old data keys are destroyed, the leaked
	// key opens what is under them.
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
	// Verifying is called from time to time while records are opened to verify, with
	// the number of credentials done and the approximate total.
	Verifying func(done, of int64)
	// Removing is called before anything that opens records is removed, with what
	// copies of the database from before still need.
	Removing func([]BackupNeed)
}

// Rotate does everything that is missing for the store to depend on the ring's
// current KEK and its recovery KEKs alone, and returns what it did. It can be
// stopped anywhere and called again, and then goes on.
//
// It returns ErrBlocked, core's sentinels and core.ErrStoreUnavailable; the
// report, if not nil, is of what was done until then.
func (r *Rotator) Rotate(ctx context.Context, opts RotateOptions) (*Report, error) {
	opts = opts.complete()
	blockers, err := r.blockers(ctx, opts)
	if err != nil {
		return nil, err
	}
	if len(blockers) > 0 && !opts.Force {
		return nil, blocked(blockers)
	}
	report, err := r.begin(ctx, opts)
	if err != nil {
		return nil, err
	}
	report.Notes = append(report.Notes, blockers...)
	known := r.keys(ctx, report.Compromised)
	opts.Removing(report.Before.needs(report.Former, &known))
	if !opts.Compromised {
		added, err := r.ring.Rewrap(ctx)
		report.Rewrapped += len(added)
		if err != nil {
			return report, fmt.Errorf("wrapping the data keys under %s: %w", report.KEKID, err)
		}
	}
	if opts.Reseal {
		if done, err := r.renew(ctx, report, opts); err != nil || !done {
			return report, err
		}
	}
	if err := r.prune(ctx, report); err != nil {
		return report, err
	}
	return report, r.finish(ctx, report)
}

// complete returns the options with what they imply.
func (o RotateOptions) complete() RotateOptions {
	o.Reseal = o.Reseal || o.Compromised
	o.Detach = o.Detach && !o.Compromised
	if o.Progress == nil {
		o.Progress = func(Run) {}
	}
	if o.Verifying == nil {
		o.Verifying = func(int64, int64) {}
	}
	if o.Removing == nil {
		o.Removing = func([]BackupNeed) {}
	}
	return o
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

// renew rolls, re-seals, verifies and destroys. It reports false if it left the
// re-seal to the instances.
func (r *Rotator) renew(ctx context.Context, report *Report, opts RotateOptions) (done bool, err error) {
	if roll, err := r.mustRoll(ctx, report, opts); err != nil {
		return false, err
	} else if roll {
		if err := r.roll(ctx, opts); err != nil {
			return false, fmt.Errorf("rolling the ring: %w", err)
		}
	}
	resealed, err := r.Reseal(ctx, r.ring.Status().Primary, opts)
	if err != nil || resealed == nil {
		return false, err
	}
	report.Resealed = resealed.add(report.Resealed)
	if err := r.save(ctx, report); err != nil {
		return false, err
	}
	if report.Verified, err = r.verify(ctx, report.Before.Credentials, opts); err != nil {
		return false, err
	}
	return true, r.destroyOld(ctx, report, opts)
}

// roll rolls the ring. An operator who insists leaves behind what cannot follow.
func (r *Rotator) roll(ctx context.Context, opts RotateOptions) error {
	if opts.Force && opts.Compromised {
		return r.ring.RollPast(ctx)
	}
	return r.ring.Roll(ctx)
}

// mustRoll reports whether the primary has to give way. One that this rotation made
// before it was interrupted need not, unless an instance that lagged behind had it
// wrapped under an old KEK; but only
// the database says that the primary is new, and it is not trusted once a key is known
// to somebody.
func (r *Rotator) mustRoll(ctx context.Context, report *Report, opts RotateOptions) (bool, error) {
	if opts.Compromised || r.ring.Status().Primary.String() == report.Before.primary() {
		return true, nil
	}
	state, err := r.store.LoadRing(ctx)
	if err != nil {
		return false, err
	}
	known := r.keys(ctx, nil)
	p := state.Primary()
	return p == nil || slices.ContainsFunc(p.Wraps, func(w core.WrappedKey) bool { return !known.wanted(w.KEKID) }), nil
}

// verify opens every record. about is the earlier count of credentials, which is good
// enough for a progress bar.
func (r *Rotator) verify(ctx context.Context, about int64, opts RotateOptions) (*credential.Report, error) {
	var done int64
	return r.credentials.Verify(ctx, &credential.VerifyOptions{MostFailed: mostFailures, Progress: func(rows int) {
		done += int64(rows)
		opts.Verifying(done, about)
	}})
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
// primary, or zero if the ring seals legacy records. It takes the place of any
// re-seal that is under way, with a limit of the rate of its own: what that one did
// is not stale any more. Records that do not open are named in what it returns, and
// left as they are.
//
// With opts.Detach it begins a re-seal, if none to the same target is under way, and
// returns nil while that is not done; it is to be called again.
func (r *Rotator) Reseal(ctx context.Context, target Target, opts RotateOptions) (*Resealed, error) {
	opts = opts.complete()
	begun := time.Now()
	run, stage, err := r.resealer.Stage(ctx, target)
	if err != nil {
		return nil, err
	}
	after := firstID
	switch {
	case stage == Sealed:
	case opts.Detach && stage == UnderWay:
		return nil, nil
	default:
		if run, err = r.resealer.Begin(ctx, target, opts.MaxRate); err != nil {
			return nil, err
		}
		if opts.Detach {
			_, err := r.resealer.Plan(ctx, run)
			return nil, err
		}
		if after, err = r.resealer.Wait(ctx, run, opts.Progress); err != nil {
			return nil, fmt.Errorf("sealing records anew: %w", err)
		}
	}
	after, known, err := r.mopAfter(ctx, run.ID, after)
	if err != nil {
		return nil, err
	}
	return r.resealRest(ctx, run, after, known, begun, opts)
}

// resealRest seals the rows with an ID above after anew that the ranges of run left, and
// ends it. The others that do not open are known.
func (r *Rotator) resealRest(ctx context.Context, run Run, after int64, known failures, begun time.Time, opts RotateOptions) (*Resealed, error) {
	failed, err := r.resealOtherLegacy(ctx, run)
	if err == nil {
		known.add(failed)
		failed, err = r.resealer.mop(ctx, run, after, known, opts.Progress)
	}
	if err != nil {
		return nil, fmt.Errorf("sealing the last records anew: %w", err)
	}
	resealed := &Resealed{Failed: failed.named, FailedRows: failed.rows, Seconds: time.Since(begun).Seconds()}
	if now, ok, err := r.store.CurrentRun(ctx); err == nil && ok && now.ID == run.ID {
		resealed.Rows, resealed.Skipped = now.Done, now.Skipped
	}
	return resealed, nil
}

// resealLate seals anew, here and in one go, what was deposited under an old data key
// since, which is little.
func (r *Rotator) resealLate(ctx context.Context, opts RotateOptions) (*Resealed, error) {
	begun := time.Now()
	run, err := r.resealer.Begin(ctx, r.ring.Status().Primary, opts.MaxRate)
	if err != nil {
		return nil, err
	}
	return r.resealRest(ctx, run, firstID, failures{}, begun, opts)
}

// mopAfter returns the ID after which rows may still be stale, and those before it that do
// not open: after, or the first there is, where other instances found some that do not
// open, some changed while they were sealed anew, or upstream may have written to rows
// that had been.
func (r *Rotator) mopAfter(ctx context.Context, runID string, after int64) (int64, failures, error) {
	run, ok, err := r.store.CurrentRun(ctx)
	if err != nil {
		return after, failures{}, err
	}
	state, err := r.store.LoadRing(ctx)
	if err != nil {
		return after, failures{}, err
	}
	known, exact := r.resealer.tally.upTo(after, runID, run.Failed)
	if !ok || run.ID != runID || !exact || run.Skipped > 0 || !state.LegacyClosed {
		return firstID, failures{}, nil
	}
	return after, known, nil
}

const (
	// destroyAttempts bounds how often records that were sealed under an old data key
	// in the meantime, by an instance that had not learnt of the new one, are sealed
	// anew before the old data keys are given up on.
	destroyAttempts = 10
	// destroyPause is how long to wait in between: an instance learns of a new data
	// key within two seconds.
	destroyPause = time.Second
)

// destroyOld destroys the data keys under which no record is left. Those under which
// some are left get another chance together, since whoever writes to the database may
// have planted any number of them.
func (r *Rotator) destroyOld(ctx context.Context, report *Report, opts RotateOptions) error {
	for attempt := 1; ; attempt++ {
		inUse, err := r.destroyUnused(ctx, report)
		if err != nil || len(inUse) == 0 || attempt == destroyAttempts {
			return err
		}
		if attempt > 1 && !pause.For(ctx, destroyPause) {
			return context.Cause(ctx)
		}
		again, err := r.resealLate(ctx, opts)
		if err != nil {
			return err
		}
		if again.Rows == 0 && again.FailedRows > 0 {
			return nil // what is left does not open
		}
	}
}

// destroyUnused destroys the data keys that no record needs, and returns those that some
// do.
func (r *Rotator) destroyUnused(ctx context.Context, report *Report) (inUse []envelope.KeyID, err error) {
	state, err := r.store.LoadRing(ctx)
	if err != nil {
		return nil, err
	}
	var old []envelope.KeyID
	for _, k := range state.DataKeys {
		if k.State == keyring.Enabled && !k.Primary {
			old = append(old, k.ID)
		}
	}
	destroyed, inUse, err := r.ring.DestroyUnused(ctx, old)
	for _, id := range destroyed {
		report.Destroyed = append(report.Destroyed, id.String())
	}
	if err != nil {
		return nil, fmt.Errorf("destroying the old data keys: %w", err)
	}
	if len(destroyed) > 0 {
		err = r.save(ctx, report)
	}
	return inUse, err
}

// finish looks at the outcome and closes the report.
func (r *Rotator) finish(ctx context.Context, report *Report) error {
	if err := r.lookAfter(ctx, report); err != nil {
		return err
	}
	report.State, report.EndedAt = "done", time.Now().UTC()
	known := r.keys(ctx, report.Compromised)
	report.conclude(&known)
	if err := r.noteKept(ctx, report); err != nil {
		report.Remains = append(report.Remains, fmt.Sprintf("a previous key may be a recovery key as well, and does not say which it is: %v", err))
	}
	report.Independent = report.Independent && len(report.Kept) == 0 && len(report.Remains) == 0
	return r.save(ctx, report)
}

// lookAfter reads the store as it is at the end. Where no record was sealed anew, they
// need not be counted once more.
func (r *Rotator) lookAfter(ctx context.Context, report *Report) (err error) {
	if report.Reseal {
		_, report.After, err = r.look(ctx)
		return err
	}
	state, err := r.store.LoadRing(ctx)
	if err == nil {
		report.After = snapshot(&state, report.Before.counts())
	}
	return err
}

// noteKept notes the KEKs of previous providers that are recovery KEKs as well. It
// returns an error where that cannot be told.
func (r *Rotator) noteKept(ctx context.Context, report *Report) (err error) {
	recovery := r.ring.Status().RecoveryKEKIDs
	if len(recovery) == 0 {
		return nil
	}
	for _, p := range r.previous {
		s, statusErr := p.Status(ctx)
		switch {
		case statusErr == nil && slices.ContainsFunc(recovery, func(id core.KEKID) bool { return id.Key() == s.KEKID.Key() }):
			report.Kept = append(report.Kept, s.KEKID)
		case statusErr != nil && !errors.Is(statusErr, core.ErrKeyDenied): // which opens nothing
			err = errors.Join(err, statusErr)
		}
	}
	return err
}

func (r *Rotator) save(ctx context.Context, report *Report) error {
	text, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("saving report: %w", err)
	}
	return r.store.SaveReport(ctx, text)
}

// LastReport returns the report of the last rotation of the store, or nil. One
// without a State is of no rotation: it keeps what Prune removed.
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
