// Package keyring is the ring: the data keys of one store, of which one, the
// primary, seals. It decides which data key is used, how often, and for how long
// it may stay in memory; it is where an answer of a key provider becomes "sealed",
// "not now" or "never".
//
// The ring trusts its provider and does not trust the database. What it reads
// there selects nothing: a wrap is unwrapped only by a KEK that is configured, the
// key that comes out must have the key ID that the record names, a wrap is bound
// to its store and version, and a primary older than one already seen is not used.
//
// A data key is unwrapped once in a process and then kept. It leaves memory when
// the current provider answers that it may not be used (core.ErrKeyDenied), or
// has not answered for the length of the outage budget. Everything that waits for
// a provider or the database happens off the path of sealing and opening, which is
// an atomic load and the cipher.
package keyring
