package drill

import (
	"context"
	"math"
	"math/bits"

	"github.com/lockwood-kms/lockwood/credential"
)

const (
	// leastPages is in how many places of the table a sample is taken at the least:
	// records that were sealed at the same time are beside each other.
	leastPages = 20
	// pageRows is how many rows are read at a time at the most, which keeps a
	// large sample out of memory.
	pageRows = 1000
)

// sampleRows calls look with n of the credentials in s, of which there are about
// total, or with all if there are no more.
func sampleRows(ctx context.Context, s credential.Store, total int64, n int, look func(*credential.Row)) error {
	n = int(min(int64(n), max(total, 1)))
	pages := min(n, max(leastPages, ceil(n, pageRows)))
	starts := make([]int64, pages)
	for i := range starts {
		starts[i] = math.MinInt64 // each page goes on where the one before it ended
	}
	if total > int64(n) {
		if err := spread(ctx, s, starts, total, ceil(n, pages)); err != nil {
			return err
		}
	}
	last := int64(math.MinInt64)
	for i, start := range starts {
		rows, err := s.Scan(ctx, max(start, last), ceil(n, pages-i))
		if err != nil {
			return err
		}
		for i := range rows {
			look(&rows[i])
			last = rows[i].ID
		}
		n -= len(rows)
	}
	return nil
}

// ceil returns n / d, rounded up.
func ceil(n, d int) int { return (n + d - 1) / d }

// spread sets after which ID each page of size rows begins: evenly over the table,
// the first with its first row, the last so that it ends with its last row.
func spread(ctx context.Context, s credential.Store, starts []int64, total int64, size int) error {
	rows, err := s.Scan(ctx, math.MinInt64, 1)
	if err != nil || len(rows) == 0 {
		return err
	}
	first := rows[0].ID
	last, err := lastID(ctx, s, first)
	if err != nil {
		return err
	}
	// The last page takes as much of the IDs as size is of all rows. In two's
	// complement the difference of any two IDs is right, and so are the sums.
	width := scale(uint64(last)-uint64(first)+1, uint64(max(0, total-int64(size))), uint64(total))
	for i := range starts {
		starts[i] = first - 1 + int64(scale(width, uint64(i), uint64(max(1, len(starts)-1))))
	}
	return nil
}

// scale returns n × part / whole, where part is not greater than whole.
func scale(n, part, whole uint64) uint64 {
	high, low := bits.Mul64(n, part)
	scaled, _ := bits.Div64(high, low, whole)
	return scaled
}

// lastID returns the greatest ID of s, in which first is one, by halving what lies
// above it: a store reads rows upwards only.
func lastID(ctx context.Context, s credential.Store, first int64) (int64, error) {
	low, high := first, int64(math.MaxInt64) // low is an ID, and above high there is none
	for low < high {
		middle := low + int64((uint64(high)-uint64(low))/2)
		rows, err := s.Scan(ctx, middle, 1)
		if err != nil {
			return 0, err
		}
		if len(rows) > 0 {
			low = rows[0].ID
		} else {
			high = middle
		}
	}
	return low, nil
}
