package sqlite

import (
	"testing"
	"time"
)

func TestTimesComeBack(t *testing.T) {
	for _, want := range []time.Time{
		time.Date(2026, 11, 23, 18, 8, 38, 125e6, time.UTC),
		time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC),
		time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(12000, 2, 29, 1, 2, 3, 0, time.UTC),
		time.Date(275760, 9, 13, 0, 0, 0, 0, time.UTC), // the last that JavaScript has
	} {
		var got time.Time
		if err := (stamp{&got}).Scan(want.Format(timeLayout)); err != nil || !got.Equal(want) {
			t.Errorf("%s came back as %s, %v", want, got, err)
		}
	}
}
