// Package startup measures how soon the product's binary answers its first
// deposit, on a database file that does not exist yet, and how much memory it
// holds when it then has nothing to do.
package startup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/lockwood-kms/lockwood/bench/load"
	"github.com/lockwood-kms/lockwood/bench/measure"
	"github.com/lockwood-kms/lockwood/bench/server"
	"github.com/lockwood-kms/lockwood/providers/envkey"
)

// The bounds.
const (
	mostStart  = 300 // milliseconds
	mostMemory = 40  // MiB
)

// settling is how long a server has nothing to do before its memory is read.
const settling = 2 * time.Second

// Run starts the binary several times and returns the table. dir is for temporary
// files.
func Run(ctx context.Context, runs int, binary, dir string) (*measure.Table, error) {
	var starts, memory measure.Sample
	for range runs {
		ms, mib, err := once(ctx, binary, dir)
		if err != nil {
			return nil, err
		}
		starts, memory = append(starts, ms), append(memory, mib)
	}
	t := &measure.Table{
		Title:  "Start and memory, SQLite",
		Header: []string{"figure", "median", "quartiles", "bound", ""},
		Notes:  []string{fmt.Sprintf("%d starts, each on a fresh file; the first deposit is answered when it is durable. Memory %v later.", runs, settling)},
	}
	t.Add("start to first answered deposit, ms", fmt.Sprintf("%.0f", starts.Median()), starts.Spread(0),
		fmt.Sprintf("< %d", mostStart), measure.Verdict(starts.Median() < mostStart))
	t.Add("idle resident memory, MiB", fmt.Sprintf("%.1f", memory.Median()), memory.Spread(1),
		fmt.Sprintf("< %d", mostMemory), measure.Verdict(memory.Median() < mostMemory))
	return t, nil
}

// once starts the binary and returns the milliseconds to the first deposit and
// the MiB that it holds afterwards.
func once(ctx context.Context, binary, dir string) (ms, mib float64, err error) {
	if dir, err = os.MkdirTemp(dir, "start"); err != nil {
		return 0, 0, err
	}
	secret := envkey.Generate()
	request, err := load.Deposit(secret, 1, "first")
	if err != nil {
		return 0, 0, err
	}
	p, err := server.Start(ctx, dir, []string{
		"DATABASE_URL=sqlite:" + filepath.Join(dir, "lockwood.db"), "ADMIN_ADDR=",
		"FOREST_AUTH_SECRET=" + secret, "FOREST_EXECUTOR_ENCRYPTION_KEY=" + envkey.Generate(),
	}, binary, "serve")
	if err != nil {
		return 0, 0, err
	}
	defer p.Stop()
	if err := p.Await(func() bool { return load.Accepted(p.Addr, request) }); err != nil {
		return 0, 0, err
	}
	ms = float64(time.Since(p.Began).Microseconds()) / 1000
	select {
	case <-time.After(settling):
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	resident, err := p.Resident()
	return ms, float64(resident) / (1 << 20), err
}
