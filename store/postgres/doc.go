// Package postgres keeps a store in PostgreSQL, beside the tables of the
// upstream executor and readable by it. It exists so that many instances can
// share one vault: whatever must not happen twice, or at the same time, is
// decided by the database and not by an instance.
//
// It works behind a transaction pooler such as PgBouncer: it uses no search_path and
// no other state of a session, and the only lock that outlives a statement belongs to a
// transaction. Every table is written with its schema, which is configuration.
// Statements are prepared by name where the server keeps them; where it does not, as
// behind some poolers, the store finds that out and goes on without.
//
// The one lock worth knowing is that on the row of a data key. A deposit takes
// it shared (FOR KEY SHARE) in the statement that writes the records, or in the
// function lockwood_upsert_credential_4 that an unnamed statement calls; destroying takes it exclusively (FOR
// UPDATE), and then counts. So a record is either counted, or finds its key
// destroyed and is not written.
//
// What counts the records under a data key counts the credential table alone. Whoever
// seals columns of their own under a ring that is kept here must never destroy a data
// key: nothing would tell that one of theirs needs it.
package postgres
