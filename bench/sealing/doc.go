// Package sealing compares what sealing and opening a record cost: through a
// Lockwood ring, by the bare cipher of the standard library, which is the limit
// since a ring can only add to it, and through the libraries that others use for
// the same work, each called as its documentation shows.
package sealing
