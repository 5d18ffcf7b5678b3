package rotation

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/internal/pause"
)

const (
	// behindLimit is how long an instance may take to learn of the data key that a
	// re-seal is to reach. One that has another for longer is past it.
	behindLimit = 20 * time.Second
	// askInterval is how often the queue is asked whether ranges wait, while rows are
	// seen to be sealed anew.
	askInterval = 5 * time.Second
)

// errAbandoned means that whoever began a run does not plan it any more.
var errAbandoned = errors.New("the re-seal has no coordinator any more; run the command that began it again")

// role is what an instance does in a run: coordinator or follower.
type role int

const (
	coordinator role = iota // of the command that began the run
	follower                // of an instance that works on it meanwhile
)

func (o role) interval() time.Duration {
	if o == follower {
		return followInterval
	}
	return waitInterval
}

// attend works on the queue until nothing of the run waits in it, and returns how many
// ranges of it are lost.
func (r *Resealer) attend(ctx context.Context, run Run, as role, progress func(Run)) (lost int, err error) {
	r.trouble.forget()
	working, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { r.work(working) })
	defer work.Wait()
	defer stop()
	v := vigil{r: r, run: run, as: as, movedAt: time.Now(), aheadAt: time.Now()}
	for pause.For(ctx, as.interval()) {
		if done, err := v.look(ctx, progress); done {
			return v.lost, err
		}
	}
	return 0, fmt.Errorf("waiting for the re-seal: %w", context.Cause(ctx))
}

// work works on the queue until ctx ends. It begins again where it could not begin, as
// while the database does not answer.
func (r *Resealer) work(ctx context.Context) {
	for ok := true; ok; ok = pause.For(ctx, time.Second) {
		err := r.queue.Work(ctx, r.WorkRange)
		switch {
		case err != nil && ctx.Err() == nil:
			r.trouble.note(fmt.Errorf("working on ranges: %w: %w", core.ErrStoreUnavailable, err))
		case err != nil:
			r.opts.Logger.Warn("the work on a re-seal did not end well; another instance takes it up", "error", err)
		}
	}
}

// vigil looks after a run that is under way.
type vigil struct {
	r   *Resealer
	run Run
	as  role

	seen    Run       // as it was read last
	movedAt time.Time // when it was another
	aheadAt time.Time // when the ring's primary was the target
	askedAt time.Time // when the queue was asked
	lost    int       // ranges considered lost at the last check
}

// look reports whether nothing is left to wait for, because all is done, with a nil
// error, or because it will not be.
func (v *vigil) look(ctx context.Context, progress func(Run)) (done bool, err error) {
	done, err = v.read(ctx, progress)
	if done {
		return true, err
	}
	if v.run.Target.IsZero() || v.r.opts.Primary() == v.run.Target {
		v.aheadAt = time.Now()
	}
	stuck := time.Since(v.movedAt) > outage
	trouble := v.r.trouble.last()
	switch {
	case time.Since(v.aheadAt) > behindLimit && v.as == coordinator:
		return true, fmt.Errorf("%w: the ring has another primary data key by now; run it again", ErrSuperseded)
	case time.Since(v.aheadAt) > behindLimit:
		return true, errBehind
	case trouble != nil && (stuck || !passes(trouble)):
		return true, trouble
	case err != nil && stuck:
		return true, err
	case v.as == follower && stuck && !v.seen.Planned:
		return true, errAbandoned
	}
	return false, nil
}

// read reads how far the run is.
func (v *vigil) read(ctx context.Context, progress func(Run)) (done bool, err error) {
	now, ok, err := v.r.store.CurrentRun(ctx)
	switch {
	case err != nil:
		return false, err
	case !ok || now.ID != v.run.ID:
		return true, ErrSuperseded
	}
	moved := now != v.seen
	if moved {
		v.seen, v.movedAt = now, time.Now()
	}
	progress(now)
	if now.Ended {
		return true, nil
	}
	if !now.Planned || moved && time.Since(v.askedAt) < askInterval {
		return false, nil
	}
	v.askedAt = time.Now()
	waiting, lost, err := v.r.queue.Waiting(ctx, v.run.ID)
	v.lost = lost
	return waiting == lost && err == nil, err
}

// passes reports whether err is of something that ends by itself.
func passes(err error) bool {
	for _, target := range []error{
		core.ErrUnavailable, core.ErrStoreUnavailable, keyring.ErrNotEnabled, ErrSuperseded, context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// trouble is why the last range that was worked on here could not be done, nil if it
// was. It is safe for concurrent use.
type trouble struct {
	mu  sync.Mutex
	err error
}

func (t *trouble) note(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = err
}

func (t *trouble) forget() { t.note(nil) }

func (t *trouble) last() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}
