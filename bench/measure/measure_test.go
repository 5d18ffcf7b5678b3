package measure

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestSample(t *testing.T) {
	for name, tc := range map[string]struct {
		s                 Sample
		median, low, high float64
	}{
		"one":  {Sample{7}, 7, 7, 7},
		"odd":  {Sample{5, 1, 4, 2, 3}, 3, 2, 4},
		"even": {Sample{4, 1, 3, 2}, 2.5, 1.75, 3.25},
	} {
		low, high := tc.s.Quartiles()
		if tc.s.Median() != tc.median || low != tc.low || high != tc.high {
			t.Errorf("%s: got %v, %v–%v; want %v, %v–%v", name, tc.s.Median(), low, high, tc.median, tc.low, tc.high)
		}
	}
}

func TestOverDividesRoundByRound(t *testing.T) {
	if got := (Sample{2, 9}).Over(Sample{1, 3}); got[0] != 2 || got[1] != 3 {
		t.Errorf("got %v, want [2 3]", got)
	}
}

func TestCPUClockCountsWorkAndNotWaiting(t *testing.T) {
	spent := func(f func()) time.Duration {
		began := CPU()
		f()
		return CPU() - began
	}
	busy := spent(func() {
		for began := time.Now(); time.Since(began) < 50*time.Millisecond; {
		}
	})
	idle := spent(func() { time.Sleep(50 * time.Millisecond) })
	if busy <= idle {
		t.Errorf("50 ms of work took %v of CPU, 50 ms of sleep %v", busy, idle)
	}
	if other, err := CPUOf(os.Getpid()); err != nil || other < busy {
		t.Errorf("CPUOf(own process) = %v, %v; want at least %v", other, err, busy)
	}
}

func TestRunTellsTwiceTheWork(t *testing.T) {
	sink := 0
	spin := func(turns int) Work {
		return func(n int) {
			for i := range n * turns {
				sink += i & 1
			}
		}
	}
	s := Plan{Rounds: 9, Window: 5 * time.Millisecond}.Run(CPU, spin(1000), spin(2000))
	if ratio := s[1].Over(s[0]).Median(); ratio < 1.5 || ratio > 2.5 {
		t.Errorf("twice the work costs %.2f times as much", ratio)
	}
}

func TestTableAlignsItsColumns(t *testing.T) {
	table := Table{Title: "T", Header: []string{"a", "ratio"}}
	table.Add("wide–cell", "1")
	var b strings.Builder
	if err := table.Write(&b); err != nil {
		t.Fatal(err)
	}
	want := "### T\n\n| a         | ratio |\n| --------- | ----- |\n| wide–cell | 1     |\n\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}
