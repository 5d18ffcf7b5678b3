// Package backup puts a backup in its place and says what is in one: which keys it needs,
// which of these are at hand, and whether its records open. A backup that nobody has
// opened is a hope; this package looks at one as whoever has to restore it will.
//
// It knows no database: how a copy is made is the store's, and what stands in a restored
// one it reads through the same interfaces as everything else.
package backup
