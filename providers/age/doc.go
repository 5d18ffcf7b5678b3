// Package age wraps data keys for an offline recipient of age
// (age-encryption.org/v1), so that a store survives the loss of its KMS key. The
// server holds the public half, a Recipient, which wraps and can do nothing else;
// the private half, an Identity, lies in a safe until the day of a recovery, when
// its Provider unwraps.
//
// age takes no additional authenticated data, so the aad of a wrap is bound from
// the inside: its SHA-256 stands in the encrypted file before the data key, and is
// compared before the data key is released (docs/format.md, section 9.4). A wrap
// moved to another store, or to another data key, does not unwrap.
//
// An age file proves nothing about who wrote it. Anyone who has the recipient,
// which is no secret, can wrap a data key of their own choice for it. What an
// Identity unwraps may therefore open what a record's key ID commits to, and must
// never seal: whoever recovers a store makes a fresh primary data key first.
//
// X25519 and ChaCha20-Poly1305 are not approved by FIPS 140-3. Under
// GODEBUG=fips140=only the package makes neither a Recipient nor an Identity, and
// says so.
package age
