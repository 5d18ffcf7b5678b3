package scale

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/lockwood-kms/lockwood/bench/load"
	"github.com/lockwood-kms/lockwood/bench/measure"
	"github.com/lockwood-kms/lockwood/bench/server"
	"github.com/lockwood-kms/lockwood/rotation"
)

const (
	clients     = 8
	depositRate = 400  // deposits a second, of all clients
	resealRate  = 1000 // rows a second, over instance and command
	// leastBusy is how much of that rate a re-seal has to reach on its side of the
	// comparison, and busyPart how much of the re-seal's time the side may last: else
	// the side would be idle in part.
	leastBusy, busyPart = 0.8, 0.8
)

// feel measures what deposits feel of a re-seal whose rate is limited: without,
// with and without it.
func (v *vault) feel(ctx context.Context, plan Plan) (*measure.Table, error) {
	if plan.Deposits == 0 {
		return nil, nil
	}
	p, err := server.Start(ctx, v.dir, v.env(), v.binary, "serve")
	if err != nil {
		return nil, err
	}
	defer p.Stop()
	first, err := load.Deposit(v.secret, 1, "first")
	if err != nil {
		return nil, err
	}
	if err := p.Await(func() bool { return load.Accepted(p.Addr, first) }); err != nil {
		return nil, err
	}
	n := min(plan.Deposits, int(busyPart*depositRate*float64(v.records)/resealRate))
	idle, err := v.idle(ctx, p.Addr, n)
	if err != nil {
		return nil, err
	}
	idles, busies, resealed := []latency{idle}, []latency{}, []string{}
	var over measure.Sample
	for range plan.Sides {
		busy, rows, err := v.busy(ctx, p.Addr, n)
		if err != nil {
			return nil, err
		}
		before := idle
		if idle, err = v.idle(ctx, p.Addr, n); err != nil {
			return nil, err
		}
		idles, busies, resealed = append(idles, idle), append(busies, busy), append(resealed, fmt.Sprint(rows))
		over = append(over, 2*busy.p99/(before.p99+idle.p99))
	}
	t := &measure.Table{
		Title:  "Deposits while records are sealed anew at a limited rate",
		Header: []string{"side", "deposits", "p50, ms", "p99, ms", "p99 over idle", "quartiles", "bound", ""},
		Notes: []string{fmt.Sprintf("%d clients at %d deposits a second in all; the re-seal at %d rows a second over instance and command, %d records in the store. "+
			"%d times idle, with the re-seal and idle again; medians, and each p99 over the mean of the two beside it. "+
			"Rows sealed anew on the sides with the re-seal: %s; on the idle ones: none.",
			clients, depositRate, resealRate, v.records, plan.Sides, strings.Join(resealed, ", "))},
	}
	addSide(t, "idle", idles, n, "", "", "", "")
	addSide(t, "re-seal", busies, n, fmt.Sprintf("%.2f", over.Median()), over.Spread(2), fmt.Sprintf("≤ %.1f", mostP99), measure.Verdict(over.Median() <= mostP99))
	return t, nil
}

// addSide adds the row of a side.
func addSide(t *measure.Table, side string, list []latency, n int, more ...string) {
	var p50, p99 measure.Sample
	for _, l := range list {
		p50, p99 = append(p50, l.p50), append(p99, l.p99)
	}
	t.Add(append([]string{side, fmt.Sprintf("%d × %d", len(list), n), fmt.Sprintf("%.2f", p50.Median()), fmt.Sprintf("%.2f", p99.Median())}, more...)...)
}

// latency is what deposits of one side took, in milliseconds.
type latency struct{ p50, p99 float64 }

func (v *vault) side(addr string, n int) (latency, error) {
	took, err := v.deposits(addr, n)
	if err != nil {
		return latency{}, err
	}
	return latency{millis(took[len(took)/2]), millis(took[len(took)*99/100])}, nil
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// errVoid means that a side of a comparison was not what it is called.
var errVoid = errors.New("the comparison is void")

// idle is a side on which no row is sealed anew.
func (v *vault) idle(ctx context.Context, addr string, n int) (latency, error) {
	before, err := v.currentRun(ctx)
	if err != nil {
		return latency{}, err
	}
	l, err := v.side(addr, n)
	if err != nil {
		return l, err
	}
	after, err := v.currentRun(ctx)
	if err == nil && (after.ID != before.ID || after.Done != before.Done) {
		err = fmt.Errorf("%w: %d rows were sealed anew on an idle side", errVoid, after.Done-before.Done)
	}
	return l, err
}

// busy is a side with a re-seal, from when that is under way, and how many rows were
// sealed anew on it.
func (v *vault) busy(ctx context.Context, addr string, n int) (l latency, rows int64, err error) {
	before, end, err := v.background(ctx)
	if err != nil {
		return l, 0, err
	}
	began := time.Now()
	l, err = v.side(addr, n)
	took := time.Since(began)
	after, lookErr := v.currentRun(ctx)
	if err := errors.Join(err, lookErr, end()); err != nil {
		return l, 0, err
	}
	rows = after.Done - before.Done
	if want := int64(leastBusy * resealRate * took.Seconds()); after.ID != before.ID || rows < want {
		err = fmt.Errorf("%w: %d rows were sealed anew in %v beside the deposits, want %d", errVoid, rows, took.Round(time.Second), want)
	}
	return l, rows, err
}

// background begins a re-seal of everything, and returns it once it is under way,
// and what ends it.
func (v *vault) background(ctx context.Context) (run rotation.Run, end func() error, err error) {
	last, err := v.currentRun(ctx)
	if err != nil {
		return run, nil, err
	}
	if _, err := v.do(ctx, "key", "roll"); err != nil {
		return run, nil, err
	}
	cmd := exec.CommandContext(ctx, v.binary, "credentials", "reseal", "--max-rate", fmt.Sprint(resealRate))
	cmd.Dir, cmd.Env = v.dir, v.env()
	if err := cmd.Start(); err != nil {
		return run, nil, err
	}
	stop := func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	run, err = v.awaitRun(ctx, func(r rotation.Run) bool { return r.ID != last.ID && r.Done > 0 })
	if err != nil {
		stop()
		return run, nil, fmt.Errorf("beginning a re-seal: %w", err)
	}
	return run, func() error {
		stop()
		return v.endRun(ctx, run.ID)
	}, nil
}

// endRun ends a run, which the instance that serves would else go on with, and
// returns once nothing more of it is written.
func (v *vault) endRun(ctx context.Context, id string) error {
	if err := v.store.EndRun(ctx, id, 0); err != nil {
		return err
	}
	before := int64(-1)
	_, err := v.awaitRun(ctx, func(r rotation.Run) bool {
		same := r.Ended && r.Done == before
		before = r.Done
		return same
	})
	if err != nil {
		return fmt.Errorf("ending a re-seal: %w", err)
	}
	return nil
}

// awaitRun looks at the current run every half a second until it is as it should be.
func (v *vault) awaitRun(ctx context.Context, ok func(rotation.Run) bool) (run rotation.Run, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		if run, err = v.currentRun(ctx); err != nil || ok(run) {
			return run, err
		}
		select {
		case <-ctx.Done():
			return run, fmt.Errorf("not seen in time, the run is %+v", run)
		case <-tick.C:
		}
	}
}

// currentRun is the run that is under way or was the last; the zero Run if there was
// none.
func (v *vault) currentRun(ctx context.Context) (rotation.Run, error) {
	run, _, err := v.store.CurrentRun(ctx)
	return run, err
}

// deposits makes n deposits at an even pace and returns how long each took,
// ascending.
func (v *vault) deposits(addr string, n int) ([]time.Duration, error) {
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			took, err := v.client(addr, c, n/clients, time.Second*clients/depositRate)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			if err != nil {
				failed = err
			}
		})
	}
	wg.Wait()
	slices.Sort(all)
	return all, failed
}

func (v *vault) client(addr string, c, n int, every time.Duration) ([]time.Duration, error) {
	conn, err := load.Dial(addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var took []time.Duration
	next := time.Now().Add(every * time.Duration(c) / clients)
	for i := range n {
		request, err := load.Deposit(v.secret, 10+c*1000+i%500, "server")
		if err != nil {
			return nil, err
		}
		time.Sleep(time.Until(next))
		began := time.Now()
		status, err := conn.Do(request)
		if err != nil || status != 200 {
			return took, fmt.Errorf("a deposit was answered %d: %w", status, err)
		}
		took = append(took, time.Since(began))
		next = next.Add(every)
	}
	return took, nil
}
