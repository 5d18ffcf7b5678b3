// Package sqlite keeps a store in one file, by an SQLite that is compiled into
// the program. It is the default, so that a vault needs nothing installed, and
// it reads and writes a file that the upstream executor made, in the forms that
// upstream reads.
//
// A file has one writer at a time, which is what makes the rules between
// instances simple here: a statement that writes, or a transaction begun as
// IMMEDIATE, excludes every other. A store keeps one connection for writing, so
// that its own writers wait in line instead of polling for the lock, and a few
// for reading, which the write-ahead log lets go on meanwhile. A commit is on
// the disk when it returns (synchronous=FULL), and what is deleted is
// overwritten (secure_delete), the wraps of destroyed data keys above all.
//
// What counts the records under a data key counts the credential table alone. Whoever
// seals columns of their own under a ring that is kept here must never destroy a data
// key: nothing would tell that one of theirs needs it.
package sqlite
