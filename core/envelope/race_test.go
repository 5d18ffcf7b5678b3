//go:build race

package envelope_test

// raceEnabled says that the race detector runs, which allocates on its own.
const raceEnabled = true
