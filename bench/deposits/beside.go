package deposits

import (
	"context"
	"fmt"

	"github.com/lockwood-kms/lockwood/bench/measure"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// Beside compares the binary with another build of the product, such as that of the
// change before, and returns the table. dir is for temporary files. It returns
// ErrNoServer where PostgreSQL is not installed.
func Beside(ctx context.Context, plan measure.Plan, binary, other, dir string) (*measure.Table, error) {
	t := &measure.Table{
		Title:  "Deposits beside another build",
		Header: []string{"figure", "other build", "this build", "ratio", "quartiles"},
		Notes: []string{fmt.Sprintf("%d connections, tokens of 1 KiB, fsync on; medians of %d interleaved pairs of windows of %v.",
			connections, plan.Rounds, plan.Window)},
	}
	err := withCluster(func(h *host, c *pgtest.Cluster) error {
		builds := make([]*target, 2)
		for i, program := range []string{other, binary} {
			var err error
			if builds[i], err = newLockwood(ctx, program, dir, newDatabase(h, c), "auto"); err != nil {
				return fmt.Errorf("starting %s: %w", program, err)
			}
			defer builds[i].stop()
		}
		theirs, ours, err := pairs(ctx, plan, builds[0], builds[1])
		if err != nil {
			return err
		}
		row := func(figure string, ours, theirs measure.Sample) {
			ratio := ours.Over(theirs)
			t.Add(figure, fmt.Sprintf("%.0f", theirs.Median()), fmt.Sprintf("%.0f", ours.Median()),
				fmt.Sprintf("%.2f", ratio.Median()), ratio.Spread(2))
		}
		row("deposits/s", ours.rate, theirs.rate)
		row("server CPU, µs/deposit", ours.server, theirs.server)
		row("database CPU, µs/deposit", ours.database, theirs.database)
		return nil
	})
	return t, err
}
