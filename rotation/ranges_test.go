package rotation

import (
	"context"
	"math"
	"testing"

	"github.com/lockwood-kms/lockwood/core/envelope"
)

// table is a store of rows that are only IDs, and the queue of their ranges.
type table struct {
	Store
	Queue
	ids    []int64
	total  int64
	ranges []Range
}

func (s *table) Span(context.Context) (first, last int64, ok bool, err error) {
	if len(s.ids) == 0 {
		return 0, 0, false, nil
	}
	return s.ids[0], s.ids[len(s.ids)-1], true, nil
}

func (s *table) SampleStale(_ context.Context, _ Target, after int64, n int) (rows, stale int, last int64, err error) {
	for _, id := range s.ids {
		if id > after && rows < n {
			rows, stale, last = rows+1, stale+int(id&1), id // every other one
		}
	}
	return rows, stale, last, nil
}

func (s *table) GrowRun(_ context.Context, _ string, rows int64, _ bool) error {
	s.total += rows
	return nil
}

func (s *table) Add(_ context.Context, ranges []Range) error {
	s.ranges = append(s.ranges, ranges...)
	return nil
}

// lastIDs are the greatest IDs that there can be, of which a number between is not exact
// as floating point.
func lastIDs() (ids []int64) {
	for i := range int64(100_001) {
		ids = append(ids, math.MaxInt64-100_000+i)
	}
	return ids
}

// Whatever IDs there are, the ranges hold all of them once, are not too many, and where
// IDs are even they are of the wanted size and the total is near.
func TestRanges(t *testing.T) {
	even := func(n int, step int64) (ids []int64) {
		for i := range int64(n) {
			ids = append(ids, i*step+1)
		}
		return ids
	}
	for name, c := range map[string]struct {
		ids          []int64
		least, most  int
		within       float64 // of the total
		withoutTotal bool
	}{
		"none":               {nil, 0, 0, 0, false},
		"one":                {[]int64{7}, 1, 1, 0, false},
		"dense":              {even(100_000, 1), 95, 105, 0.02, false},
		"with even gaps":     {even(100_000, 99), 95, 105, 0.02, true},
		"sparse, then dense": {append(even(1000, 5), even(100_000, 1)[5000:]...), 60, 200, 0.2, false},
		"dense, then far":    {append(even(50_000, 1), 1<<62), 40, 120, 0, true},
		"at the last":        {lastIDs(), 1, 130, 0, true},
		"at the ends":        {[]int64{math.MinInt64 + 1, 5, math.MaxInt64}, 1, 65, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := &table{ids: c.ids}
			r := NewResealer(s, s, nil, ResealOptions{RangeRows: 1000, Primary: func() envelope.KeyID { return envelope.KeyID{} }})
			if _, err := r.Plan(t.Context(), Run{ID: "run"}); err != nil {
				t.Fatal(err)
			}
			if n := len(s.ranges); n < c.least || n > c.most {
				t.Errorf("%d ranges, want %d to %d", n, c.least, c.most)
			}
			var stale int64
			for _, id := range c.ids {
				stale += id & 1
				in := 0
				for _, rng := range s.ranges {
					if id > rng.After && id <= rng.Last {
						in++
					}
				}
				if in != 1 {
					t.Fatalf("ID %d is in %d ranges", id, in)
				}
			}
			if off := math.Abs(float64(s.total - stale)); !c.withoutTotal && off > c.within*float64(stale) {
				t.Errorf("the total is %d, want about %d", s.total, stale)
			}
		})
	}
}
