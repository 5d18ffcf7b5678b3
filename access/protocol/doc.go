// Package protocol is how instances of Lockwood agree on who may spend a refresh
// token. A refresh token is spent by using it: an authorization server that rotates
// takes the reuse of an old one for theft and revokes the grant (RFC 9700, section
// 4.14.2). So at most one grant is under way for a credential, whoever asks, and its
// outcome is stored before anybody uses the token that it replaced.
//
// The package holds the rules and does no work. [Demand.Judge] decides what a caller
// does with what the database holds. [Flight] is one grant, as a state machine that is
// told what happened and says what to do next. [Cell] is what the statements of a store
// do to a row, as plain functions. Package access carries the steps out, a store
// implements the statements in SQL, and the tests of this package search every
// interleaving of two instances with their faults over the same three types.
//
// A generation numbers each claim of the lease, and is never used again. It fences: what
// a holder stores is judged by the generation of the claim, and by what later ones have
// stored meanwhile.
package protocol
