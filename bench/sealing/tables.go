package sealing

import (
	"context"
	"crypto/rand"
	"fmt"
	"runtime/debug"
	"testing"

	"github.com/lockwood-kms/lockwood/bench/measure"
)

// aadSize is that of the aad of every operation, in bytes; the aad is encoded
// before the clock starts.
const aadSize = 64

// bound is by how much an operation of a ring may cost more than the bare cipher.
func (o operation) bound() float64 {
	if o.size < 1<<10 {
		return 1.20
	}
	return 1.05
}

// Run measures and returns the tables.
func Run(ctx context.Context, plan measure.Plan) ([]*measure.Table, error) {
	bare, err := newBare()
	if err != nil {
		return nil, err
	}
	ring, end, err := newEnvRing(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	aad := make([]byte, aadSize)
	rand.Read(aad)
	// A small heap is collected all the time, at the cost of whoever allocates. With
	// this one collects as in a service whose heap has 64 MiB.
	defer debug.SetGCPercent(debug.SetGCPercent(1600))
	var tables []*measure.Table
	for _, table := range []func(context.Context, measure.Plan, []byte, scheme, scheme) (*measure.Table, error){
		limitTable, scalingTable, peersTable, kmsTable,
	} {
		t, err := table(ctx, plan, aad, bare, ring)
		if err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		tables = append(tables, t)
	}
	return tables, nil
}

// limitTable compares the ring with the bare cipher.
func limitTable(_ context.Context, plan measure.Plan, aad []byte, bare, ring scheme) (*measure.Table, error) {
	t := &measure.Table{
		Title:  "Sealing: a warm ring against the bare cipher",
		Header: []string{"operation", "bare cipher, ns", "ring, ns", "ratio", "quartiles", "bound", "", "allocations"},
		Notes: []string{fmt.Sprintf("CPU time an operation, medians of %d interleaved pairs; one data key, the record under the primary, "+
			"%d bytes of aad encoded beforehand, buffers reused.", plan.Rounds, aadSize)},
	}
	for _, o := range operations {
		limit, err := o.work(bare, aad)
		if err != nil {
			return nil, err
		}
		work, err := o.work(ring, aad)
		if err != nil {
			return nil, err
		}
		s := plan.Run(measure.CPU, limit, work)
		ratio := s[1].Over(s[0])
		t.Add(o.String(), fmt.Sprintf("%.0f", s[0].Median()), fmt.Sprintf("%.0f", s[1].Median()),
			fmt.Sprintf("%.2f", ratio.Median()), ratio.Spread(2), fmt.Sprintf("≤ %.2f", o.bound()),
			measure.Verdict(ratio.Median() <= o.bound()), fmt.Sprint(allocations(work)))
	}
	return t, nil
}

// kmsTable compares a ring whose KEK is in a KMS with one under the env key.
func kmsTable(ctx context.Context, plan measure.Plan, aad []byte, _, ring scheme) (*measure.Table, error) {
	remote, end, err := newKMSRing(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	t := &measure.Table{
		Title:  "Sealing: the KEK in a KMS against the env key",
		Header: []string{"operation", "env key, ns", "KMS, ns", "ratio", "quartiles"},
		Notes:  []string{fmt.Sprintf("CPU time an operation, medians of %d interleaved pairs.", plan.Rounds)},
	}
	for _, o := range operations {
		local, err := o.work(ring, aad)
		if err != nil {
			return nil, err
		}
		work, err := o.work(remote, aad)
		if err != nil {
			return nil, err
		}
		s := plan.Run(measure.CPU, local, work)
		ratio := s[1].Over(s[0])
		t.Add(o.String(), fmt.Sprintf("%.0f", s[0].Median()), fmt.Sprintf("%.0f", s[1].Median()), fmt.Sprintf("%.2f", ratio.Median()), ratio.Spread(2))
	}
	return t, nil
}

// scalingTable shows how much faster two goroutines are than one.
func scalingTable(_ context.Context, plan measure.Plan, aad []byte, bare, ring scheme) (*measure.Table, error) {
	const goroutines = 2
	t := &measure.Table{
		Title:  "Sealing: two goroutines against one",
		Header: []string{"operation", "bare cipher", "ring", "ring relative to bare", "quartiles", "CPU an operation, bare", "ring"},
		Notes: []string{"Operations a second on the wall with two goroutines over those with one; the two columns on the right are " +
			"the CPU time of an operation with two over that with one, which other load on the machine does not hide."},
	}
	for _, o := range operations {
		var works []measure.Work
		for _, s := range []scheme{bare, ring} {
			for _, n := range []int{1, goroutines} {
				w, err := o.parallel(n, s, aad)
				if err != nil {
					return nil, err
				}
				works = append(works, w)
			}
		}
		wall, cpu := plan.Run(measure.Wall, works...), plan.Run(measure.CPU, works...)
		bareGain, ringGain := wall[0].Over(wall[1]), wall[2].Over(wall[3])
		relative := ringGain.Over(bareGain)
		t.Add(o.String(), fmt.Sprintf("%.2f", bareGain.Median()), fmt.Sprintf("%.2f", ringGain.Median()),
			fmt.Sprintf("%.2f", relative.Median()), relative.Spread(2),
			fmt.Sprintf("%.2f", cpu[1].Over(cpu[0]).Median()), fmt.Sprintf("%.2f", cpu[3].Over(cpu[2]).Median()))
	}
	return t, nil
}

// parallel is work on several goroutines.
func (o operation) parallel(goroutines int, s scheme, aad []byte) (w measure.Work, err error) {
	w = measure.Parallel(goroutines, func() measure.Work {
		one, failed := o.work(s, aad)
		if failed != nil {
			err = failed
		}
		return one
	})
	return w, err
}

// peersTable puts everyone beside the bare cipher.
func peersTable(ctx context.Context, plan measure.Plan, aad []byte, bare, ring scheme) (*measure.Table, error) {
	others, err := others(ctx)
	if err != nil {
		return nil, err
	}
	schemes := append([]scheme{ring}, others...)
	t := &measure.Table{
		Title:  "Sealing: beside others",
		Header: []string{"CPU time over that of the bare cipher (allocations)"},
		Rows:   [][]string{{bare.name}},
		Notes:  []string{fmt.Sprintf("Medians of %d interleaved pairs with the bare cipher each. Others in their normal API, which returns new memory; the collector runs as in a service with a heap of 64 MiB.", plan.Rounds)},
	}
	for _, s := range schemes {
		t.Add(s.name)
	}
	for _, o := range operations {
		t.Header = append(t.Header, o.String())
		if err := addPeers(t, o, plan, aad, bare, schemes); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// others is what a ring is compared with, besides the limit.
func others(ctx context.Context) ([]scheme, error) {
	nonce, err := newBareNonce()
	if err != nil {
		return nil, err
	}
	peers, err := newPeers(ctx)
	if err != nil {
		return nil, err
	}
	return append(append([]scheme{nonce}, peers...), newDerivePerCall()), nil
}

// addPeers appends one operation's column to the rows of t.
func addPeers(t *measure.Table, o operation, plan measure.Plan, aad []byte, bare scheme, schemes []scheme) error {
	limit, err := o.work(bare, aad)
	if err != nil {
		return err
	}
	var works []measure.Work
	for _, s := range schemes {
		w, err := o.work(s, aad)
		if err != nil {
			return err
		}
		works = append(works, w)
	}
	references, samples := plan.Compare(limit, works...)
	t.Rows[0] = append(t.Rows[0], fmt.Sprintf("%.0f ns (%d)", references[0].Median(), allocations(limit)))
	for i, w := range works {
		ratio := samples[i].Over(references[i]).Median()
		t.Rows[i+1] = append(t.Rows[i+1], fmt.Sprintf("%.2f (%d)", ratio, allocations(w)))
	}
	return nil
}

// allocations returns how often an operation of w allocates.
func allocations(w measure.Work) int { return int(testing.AllocsPerRun(1000, func() { w(1) })) }
