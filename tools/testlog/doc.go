// Command testlog reads the output of "go test -json" and prints what a person
// wants of it: one line for each package, the whole output of whatever failed,
// and every skipped test by name. It exists because a skipped test looks like a
// passed one in the usual output, and a suite that quietly stops testing its
// databases is worse than none: here a skip is a failure unless the caller
// names it as expected.
//
//	go test -json ./... | testlog -allow-skip '^TestWycheproof'
//
// The exit status is 1 if a test or a build failed, if a skip is not allowed, or
// if no test ran at all.
package main
