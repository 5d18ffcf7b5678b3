// Package replay sends the recorded traffic of the upstream executor to a running
// server and compares what comes back, so that "its clients notice no change" is
// a test and not an intention. It speaks to the server over TCP, byte by byte,
// because an HTTP client would tidy up the very requests that matter: percent
// signs, double slashes, broken headers.
//
// The differences that Lockwood makes on purpose stand in Differences, each with
// the recorded exchanges that it concerns, and each with a section of
// docs/http.md under the same name that says why. A difference that is not
// listed is an error, and so is a listed one that is not there.
//
// The package is for tests. What runs the server and keeps its credentials is a
// Target, so that the same traffic meets the handler alone and a whole instance
// with its database.
package replay
