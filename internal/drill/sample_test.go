package drill

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/lockwood-kms/lockwood/credential"
)

// ids is a store of credentials of which only the IDs count.
type ids struct {
	credential.Store
	list  []int64
	scans int
}

func (s *ids) Scan(_ context.Context, after int64, limit int) ([]credential.Row, error) {
	s.scans++
	i, found := slices.BinarySearch(s.list, after)
	if found {
		i++
	}
	var rows []credential.Row
	for _, id := range s.list[i:min(len(s.list), i+limit)] {
		rows = append(rows, credential.Row{ID: id})
	}
	return rows, nil
}

// A sample is of the size that was asked for, holds no credential twice, and
// reaches from the first to the last, give or take one.
func TestSampleRows(t *testing.T) {
	t.Parallel()
	series := func(first, step int64, n int) (list []int64) {
		for i := range int64(n) {
			list = append(list, first+i*step)
		}
		return list
	}
	for name, test := range map[string]struct {
		list []int64
		n    int
		want int
	}{
		"none":                {nil, 10, 0},
		"fewer than asked":    {series(1, 1, 7), 1000, 7},
		"as many as asked":    {series(1, 1, 1000), 1000, 1000},
		"one more than asked": {series(1, 1, 1001), 1000, 1000},
		"many":                {series(1, 1, 100_000), 1000, 1000},
		"a large sample":      {series(1, 1, 100_000), 50_000, 50_000},
		"with gaps":           {series(5, 977, 100_000), 1000, 1000},
		"the whole range":     {[]int64{math.MinInt64 + 1, -3, 0, 9, math.MaxInt64}, 2, 2},
		"one":                 {series(1, 1, 100), 1, 1},
		"one more than pages": {series(1, 1, 1000), 21, 21},
		"two":                 {series(1, 1, 100), 2, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := &ids{list: test.list}
			var got []int64
			if err := sampleRows(t.Context(), s, int64(len(test.list)), test.n, func(r *credential.Row) { got = append(got, r.ID) }); err != nil {
				t.Fatal(err)
			}
			if len(got) != test.want || !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
				t.Fatalf("%d of %d, want %d: %v", len(got), len(test.list), test.want, got[:min(len(got), 50)])
			}
			if len(got) > 1 && (got[0] != test.list[0] || got[len(got)-1] < test.list[len(test.list)-2]) {
				t.Errorf("from %d to %d", got[0], got[len(got)-1])
			}
			if len(test.list) == 100_000 && test.n == 1000 {
				half := test.list[len(test.list)/2]
				if i, _ := slices.BinarySearch(got, half); i < 400 || i > 600 {
					t.Errorf("%d of 1000 are in the first half", i)
				}
			}
			if s.scans > 150 {
				t.Errorf("%d scans", s.scans)
			}
		})
	}
}
