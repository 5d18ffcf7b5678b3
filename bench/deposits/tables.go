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

// The bounds.
const (
	leastRate = 0.85 // of the baseline's deposits a second
	mostCPU   = 1.3  // times the baseline's CPU time a deposit
)

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
		Header: []string{"minimal handler in", "figure", "minimal handler", "Lockwood", "ratio", "quartiles", "bound", ""},
		Notes: []string{fmt.Sprintf("%d connections, tokens of 1 KiB, fsync on, client and database on the same machine; medians of %d interleaved pairs of windows of %v. "+
			"The minimal handler checks, validates and seals nothing. Clients repeat their token and their endpoint, as real ones do.", connections, plan.Rounds, plan.Window)},
	}
	collisions := &measure.Table{
		Title:  "Deposits of one user and server at the same time",
		Header: []string{"clients", "rounds", "answered 200"},
	}
	err := withCluster(func(h *host, c *pgtest.Cluster) error {
		lockwood, err := newLockwood(ctx, binary, dir, newDatabase(h, c))
		if err != nil {
			return err
		}
		defer lockwood.stop()
		for _, mode := range []string{baseline.SameMode, baseline.DefaultMode} {
			if err := compare(ctx, plan, speed, lockwood, dir, newDatabase(h, c), mode); err != nil {
				return err
			}
		}
		return collide(collisions, lockwood)
	})
	return []*measure.Table{speed, collisions}, err
}

// compare adds the rows of Lockwood against the baseline in one mode.
func compare(ctx context.Context, plan measure.Plan, t *measure.Table, lockwood *target, dir string, db database, mode string) error {
	minimal, err := newBaseline(ctx, dir, db, mode)
	if err != nil {
		return fmt.Errorf("starting the minimal handler: %w", err)
	}
	defer minimal.stop()
	ours, theirs, err := pairs(ctx, plan, lockwood, minimal)
	if err != nil {
		return err
	}
	name := map[string]string{baseline.SameMode: "our exec mode", baseline.DefaultMode: "pgx's default mode"}[mode]
	row := func(figure string, ours, theirs measure.Sample) float64 {
		ratio := ours.Over(theirs)
		t.Add(name, figure, fmt.Sprintf("%.0f", theirs.Median()), fmt.Sprintf("%.0f", ours.Median()),
			fmt.Sprintf("%.2f", ratio.Median()), ratio.Spread(2), "", "")
		return ratio.Median()
	}
	bound := func(text string, holds bool) {
		last := t.Rows[len(t.Rows)-1]
		last[len(last)-2], last[len(last)-1] = text, measure.Verdict(holds)
	}
	rate := row("deposits/s", ours.rate, theirs.rate)
	bound(fmt.Sprintf("≥ %.2f", leastRate), rate >= leastRate)
	cpu := row("server CPU, µs/deposit", ours.server, theirs.server)
	bound(fmt.Sprintf("≤ %.2f", mostCPU), cpu <= mostCPU)
	row("database CPU, µs/deposit", ours.database, theirs.database)
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
