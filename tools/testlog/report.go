package main

import (
	"fmt"
	"io"
	"strings"
)

// report is what a whole run came to.
type report struct {
	passed  int
	failed  []name
	skipped []skip
	broken  int // packages that failed or did not build
}

// skip is a skipped test and its reason, in its own words.
type skip struct {
	name
	message string
}

// printSkips prints the skips, those of a package with the same reason together,
// and returns how many are not allowed.
func (r *report) printSkips(out io.Writer, allowed *patterns) (unexpected int) {
	type group struct{ mark, pkg, message string }
	var order []group
	tests := make(map[group][]string)
	for _, s := range r.skipped {
		g := group{"NOT RUN", s.pkg, s.message}
		if !allowed.match(s.test + ": " + s.message) {
			g.mark = "SKIPPED"
			unexpected++
		}
		if tests[g] == nil {
			order = append(order, g)
		}
		tests[g] = append(tests[g], s.test)
	}
	for _, g := range order {
		fmt.Fprintf(out, "%s  %s: %s\n", g.mark, g.pkg, g.message)
		fmt.Fprintf(out, "         %s\n", strings.Join(tests[g], ", "))
	}
	return unexpected
}

// summarize prints the skips and failures by name and a closing line, and
// reports whether the run is good. No test at all is not good: a wrong pattern
// would otherwise pass for ever.
func (r *report) summarize(out io.Writer, allowed *patterns) bool {
	unexpected := r.printSkips(out, allowed)
	for _, f := range r.failed {
		fmt.Fprintf(out, "FAILED   %s %s\n", f.pkg, f.test)
	}
	if unexpected > 0 {
		fmt.Fprintf(out, "%d skipped that should have run\n", unexpected)
	}
	none := r.passed+len(r.failed) == 0
	if none {
		fmt.Fprintln(out, "no test ran")
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", r.passed, len(r.failed), len(r.skipped))
	return !none && unexpected == 0 && r.broken == 0 && len(r.failed) == 0
}
