// Package relocation copies a store into an empty database, of the same kind or of
// another, and hands it over. The copy is the same store: it has the same ID, since
// every wrap is bound to it, the same data keys and the same records, byte for byte. So
// exactly one of the two may seal. The database of the source refuses every write from
// before the first row is copied, whoever writes and with whatever version; the target
// refuses them until all of it was compared with the source. The data keys of the target
// have no seals left, so that the first instance on it makes a new one, and no seal
// budget is spent twice.
//
// It exists because a dump does none of that: two databases that both go on from one
// dump seal under the same data key, each with the whole of its budget, and what users
// deposit with the one is lost to the other.
package relocation
