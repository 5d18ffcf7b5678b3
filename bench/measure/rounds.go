package measure

import (
	"runtime"
	"sync"
	"time"
)

// Work does n operations.
type Work func(n int)

// Plan says how thoroughly to measure.
type Plan struct {
	Rounds int           // windows of each work
	Window time.Duration // how long one lasts, about
}

// Run measures works by clock in windows that alternate, and returns for each the
// nanoseconds of an operation, one value a round.
func (p Plan) Run(clock Clock, works ...Work) []Sample {
	sizes := make([]int, len(works))
	for i, w := range works {
		sizes[i] = p.operations(w)
	}
	samples := make([]Sample, len(works))
	for round := range p.Rounds {
		for i := range works {
			i = (i + round) % len(works) // so that none always follows the same one
			samples[i] = append(samples[i], cost(clock, works[i], sizes[i]))
		}
	}
	return samples
}

// Compare runs works by CPU time each in turn beside reference, so that no two
// windows that are compared are further apart than one window. It returns the
// samples of the reference and of the work for each.
func (p Plan) Compare(reference Work, works ...Work) (references, samples []Sample) {
	for _, w := range works {
		s := p.Run(CPU, reference, w)
		references, samples = append(references, s[0]), append(samples, s[1])
	}
	return references, samples
}

// operations returns how many operations of w fill a window, and warms w up.
func (p Plan) operations(w Work) int {
	for n := 16; ; n *= 2 {
		began := Wall()
		w(n)
		took := Wall() - began
		if took >= p.Window/4 {
			return max(1, int(float64(n)*float64(p.Window)/float64(took)))
		}
	}
}

// cost returns the nanoseconds of an operation of w.
func cost(clock Clock, w Work, n int) float64 {
	runtime.GC() // what the window before left is not charged to this one
	began := clock()
	w(n)
	return float64(clock()-began) / float64(n)
}

// Parallel returns a work that spreads its operations over goroutines. Each has
// a work of its own, from prepare.
func Parallel(goroutines int, prepare func() Work) Work {
	works := make([]Work, goroutines)
	for i := range works {
		works[i] = prepare()
	}
	return func(n int) {
		var all sync.WaitGroup
		for _, w := range works {
			all.Go(func() { w(n / goroutines) })
		}
		all.Wait()
	}
}
