package deposits

import (
	"context"
	"fmt"
	"time"

	"github.com/lockwood-kms/lockwood/bench/baseline"
	"github.com/lockwood-kms/lockwood/bench/load"
	"github.com/lockwood-kms/lockwood/bench/measure"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// comparison is Lockwood in one configuration against the minimal handler in one mode.
type comparison struct {
	name     string
	prepared string // DATABASE_PREPARED_STATEMENTS
	mode     string // of the minimal handler
	// The bounds: deposits a second, and CPU time a deposit, as ratios. Zero is none.
	leastRate, mostServer, mostDatabase float64
}

func comparisons() []comparison {
	return []comparison{
		{"statements prepared", "auto", baseline.Prepared, 0.80, 1.25, 1.40},
		{"prepared, and the data key locked", "auto", baseline.Locking, 0.90, 0, 0},
		{"statements unnamed, as behind some poolers", "false", baseline.Unnamed, 0.85, 1.30, 0},
	}
}

// The collisions.
const (
	collidingClients = 8
	collisionRounds  = 25
)

// Run measures the binary and returns the tables. dir is for temporary files. It
// returns ErrNoServer where PostgreSQL is not installed.
func Run(ctx context.Context, plan measure.Plan, binary, dir string) ([]*measure.Table, error) {
	speed := &measure.Table{
		Title:  "Deposits over HTTP on PostgreSQL",
		Header: []string{"minimal handler", "figure", "minimal handler", "Lockwood", "ratio", "quartiles", "bound", ""},
		Notes: []string{fmt.Sprintf("%d connections, tokens of 1 KiB, fsync on, client and database on the same machine; medians of %d interleaved pairs of windows of %v. "+
			"The minimal handler checks, validates and seals nothing. Clients repeat their token and their endpoint, as real ones do.", connections, plan.Rounds, plan.Window)},
	}
	collisions := &measure.Table{
		Title:  "Deposits of one user and server at the same time",
		Header: []string{"clients", "rounds", "answered 200"},
	}
	err := withCluster(func(h *host, c *pgtest.Cluster) error {
		for _, with := range comparisons() {
			if err := with.run(ctx, plan, speed, binary, dir, newDatabase(h, c), newDatabase(h, c)); err != nil {
				return err
			}
		}
		lockwood, err := newLockwood(ctx, binary, dir, newDatabase(h, c), "auto")
		if err != nil {
			return err
		}
		defer lockwood.stop()
		return collide(collisions, lockwood)
	})
	return []*measure.Table{speed, collisions}, err
}

// run adds its rows, measured on a database for each side.
func (c comparison) run(ctx context.Context, plan measure.Plan, t *measure.Table, binary, dir string, one, other database) error {
	lockwood, err := newLockwood(ctx, binary, dir, one, c.prepared)
	if err != nil {
		return err
	}
	defer lockwood.stop()
	minimal, err := newBaseline(ctx, dir, other, c.mode)
	if err != nil {
		return fmt.Errorf("starting the minimal handler: %w", err)
	}
	defer minimal.stop()
	ours, theirs, err := pairs(ctx, plan, lockwood, minimal)
	if err != nil {
		return err
	}
	row := func(figure string, ours, theirs measure.Sample, sign string, bound float64) {
		ratio := ours.Over(theirs)
		text, verdict := "", ""
		if bound > 0 {
			text = fmt.Sprintf("%s %.2f", sign, bound)
			verdict = measure.Verdict(sign == "≥" == (ratio.Median() >= bound))
		}
		t.Add(c.name, figure, fmt.Sprintf("%.0f", theirs.Median()), fmt.Sprintf("%.0f", ours.Median()),
			fmt.Sprintf("%.2f", ratio.Median()), ratio.Spread(2), text, verdict)
	}
	row("deposits/s", ours.rate, theirs.rate, "≥", c.leastRate)
	row("server CPU, µs/deposit", ours.server, theirs.server, "≤", c.mostServer)
	row("database CPU, µs/deposit", ours.database, theirs.database, "≤", c.mostDatabase)
	return nil
}

// pairs runs windows of a and b in turn, after one of each that does not count.
func pairs(ctx context.Context, plan measure.Plan, a, b *target) (ofA, ofB figures, err error) {
	var warm figures
	for i := range plan.Rounds + 1 {
		first, second, into, other := a, b, &ofA, &ofB
		if i%2 == 1 {
			first, second, into, other = b, a, &ofB, &ofA
		}
		if i == 0 {
			into, other = &warm, &warm
		}
		if err := first.window(ctx, plan.Window, into); err != nil {
			return ofA, ofB, err
		}
		if err := second.window(ctx, plan.Window, other); err != nil {
			return ofA, ofB, err
		}
		time.Sleep(plan.Window / 10) // let the database write back what it put off
	}
	return ofA, ofB, nil
}

// collide has several clients deposit for one user and server at once.
func collide(t *measure.Table, lockwood *target) error {
	request, err := load.Deposit(lockwood.secret, 1, "contended")
	if err != nil {
		return err
	}
	accepted, err := load.Collide(lockwood.Addr, request, collidingClients, collisionRounds)
	if err != nil {
		return err
	}
	t.Add(fmt.Sprint(collidingClients), fmt.Sprint(collisionRounds), fmt.Sprintf("%d of %d", accepted, collidingClients*collisionRounds))
	return nil
}
