// Package core is the vocabulary of Lockwood: the words that every other
// package, the command line, the logs and the documentation use, and the one
// interface that a key provider implements. It depends on the standard library
// only, so that a provider for one's own key store needs nothing but this
// package.
//
// Lockwood protects a column of a database by envelope encryption:
//
//	KEK         in the environment, a KMS, an HSM …      (KeyProvider)
//	 └ wraps    data keys: few, wrapped once per KEK     (package keyring)
//	    └ seal  records: AES-256-GCM, bound to their row (package envelope)
//
// The words:
//
//   - KEK: the key-encryption key. It never leaves its provider.
//   - data key: 32 random bytes that seal records (elsewhere called a DEK). It
//     is stored only wrapped.
//   - wrap, unwrap: what a KEK does to a data key.
//   - seal, open: what a data key does to a record, one encrypted value of one
//     row.
//   - KEK ID: "key#version", the exact version of a KEK. The part before '#'
//     names the key; a provider unwraps every version of its key.
//   - ring: the data keys of one store, one of which is primary.
//   - primary, enabled, destroyed: a data key seals and opens; opens; is gone.
//   - stale record: legacy, or sealed under a data key that is not primary.
//   - outdated wrap: a wrap under a KEK version that is not the current one. It
//     never makes a record stale.
//   - aad: additional authenticated data, the context that a ciphertext is
//     bound to and without which it does not open.
//   - legacy: the format without a header that the upstream executor writes.
package core
