// Package afresh starts a store afresh whose KEK is lost. Where nothing unwraps the data
// keys any more, what is sealed under them stays unreadable, and as long as they are there
// no deposit is taken. What does not open is exported as it is, then removed, and a new
// primary data key takes the place of the lost one. Should the key turn up after all, the
// export is restored beside what was deposited since.
//
// It exists because the other ways end before this one: package keyring recovers what a
// recovery KEK opens, and package rotation moves what a configured key opens.
package afresh
