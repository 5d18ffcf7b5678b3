package scale

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/bench/kms"
	"github.com/lockwood-kms/lockwood/bench/load"
	"github.com/lockwood-kms/lockwood/bench/measure"
	"github.com/lockwood-kms/lockwood/bench/server"
)

// swaps measures how a swap to a KMS grows with the number of data keys and with
// how long the KMS takes to answer. No record is touched, so the store has none.
func swaps(ctx context.Context, plan Plan, binary, dir string) (*measure.Table, error) {
	latencies := []time.Duration{0, 20 * time.Millisecond, 100 * time.Millisecond}
	t := &measure.Table{
		Title:  "Swap to a KMS, by data keys and by what an answer of the KMS takes, in seconds",
		Header: []string{"data keys"},
		Notes:  []string{fmt.Sprintf("key rewrap, the whole command, plugin included, on an empty SQLite file; medians of %d.", plan.Swaps)},
	}
	for _, l := range latencies {
		t.Header = append(t.Header, l.String())
	}
	k := kms.Start()
	defer k.Close()
	host, env, err := k.Pin(dir)
	if err != nil {
		return nil, err
	}
	defer host.Close()
	for _, keys := range []int{1, 4, 16} {
		row := []string{fmt.Sprint(keys)}
		for _, l := range latencies {
			k.Delay(l)
			var took measure.Sample
			for i := range plan.Swaps {
				path := filepath.Join(dir, fmt.Sprintf("swap-%d-%d-%d.db", keys, l, i))
				once, err := swap(ctx, binary, dir, "sqlite:"+path, keys, env)
				if err != nil {
					return nil, err
				}
				took = append(took, once.Seconds())
			}
			row = append(row, fmt.Sprintf("%.2f", took.Median()))
		}
		t.Add(row...)
	}
	return t, nil
}

// swap makes a store with so many data keys, and moves them.
func swap(ctx context.Context, binary, dir, url string, keys int, env []string) (time.Duration, error) {
	v, err := newVault(ctx, binary, dir, url, 0)
	if err != nil {
		return 0, err
	}
	defer v.store.Close()
	ring, err := v.ring(ctx)
	if err != nil {
		return 0, err
	}
	for range keys - 1 {
		if err := ring.Roll(ctx); err != nil {
			return 0, err
		}
	}
	ring.Close()
	v.more = env
	o, err := v.do(ctx, "key", "rewrap")
	return o.took, err
}

// instances measures what instances that run beside the command do for a re-seal.
func (v *vault) instances(ctx context.Context, plan Plan) (*measure.Table, error) {
	if plan.Swaps == 0 {
		return nil, nil
	}
	t := &measure.Table{
		Title:  "Sealing every record anew with instances beside the command",
		Header: []string{"instances", "records", "rows/s"},
		Notes:  []string{fmt.Sprintf("All of them on the cores of the database; medians of %d.", plan.Swaps)},
	}
	conn, err := pgx.Connect(ctx, v.url)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	for n := range 3 {
		var rates measure.Sample
		for range plan.Swaps {
			if err := sequence(ctx, conn, "VACUUM FULL ANALYZE "+table, "CHECKPOINT"); err != nil {
				return nil, err
			}
			rate, err := v.resealBeside(ctx, n)
			if err != nil {
				return nil, err
			}
			rates = append(rates, rate)
		}
		t.Add(fmt.Sprint(n), fmt.Sprint(v.records), fmt.Sprintf("%.0f", rates.Median()))
	}
	return t, nil
}

// resealBeside seals everything anew while n instances serve.
func (v *vault) resealBeside(ctx context.Context, n int) (rate float64, err error) {
	for range n {
		p, err := server.Start(ctx, v.dir, v.env(), v.binary, "serve")
		if err != nil {
			return 0, err
		}
		defer p.Stop()
		request, err := load.Deposit(v.secret, 1_000_000, "server-0") // of a row that there is
		if err != nil {
			return 0, err
		}
		if err := p.Await(func() bool { return load.Accepted(p.Addr, request) }); err != nil {
			return 0, err
		}
	}
	rate, _, err = v.resealOnce(ctx)
	return rate, err
}
