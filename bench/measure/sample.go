package measure

import (
	"fmt"
	"slices"
)

// Sample is what was measured, one value a round.
type Sample []float64

// Median returns the middle value, or the mean of the two in the middle.
func (s Sample) Median() float64 { return s.quantile(0.5) }

// Quartiles returns the bounds between which the middle half of the values lies.
func (s Sample) Quartiles() (low, high float64) { return s.quantile(0.25), s.quantile(0.75) }

// quantile interpolates between the two values next to q.
func (s Sample) quantile(q float64) float64 {
	sorted := slices.Sorted(slices.Values(s))
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[i]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// Over returns s divided by reference, round by round. They are of one run.
func (s Sample) Over(reference Sample) Sample {
	ratios := make(Sample, len(s))
	for i := range s {
		ratios[i] = s[i] / reference[i]
	}
	return ratios
}

// Spread formats the quartiles with the given number of decimals.
func (s Sample) Spread(decimals int) string {
	low, high := s.Quartiles()
	return fmt.Sprintf("%.*f–%.*f", decimals, low, decimals, high)
}
