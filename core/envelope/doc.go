// Package envelope is the bytes at rest: how a data key seals a record and opens
// it again, as docs/format.md specifies, and how the records that the upstream
// executor wrote ("legacy") are read and, on request, still written. It holds no
// state but keys: which data key seals, where data keys come from and how often
// one may be used is package keyring's.
//
// A format-1 record names its data key in a header and is bound to aad, which
// holds the row it belongs to and the destination of the secret. A record moved
// to another row, or a row pointed at another destination, does not open.
//
// Cryptography is the standard library's: AES-256-GCM with random nonces (NIST
// SP 800-38D section 8.2.2) and HKDF-SHA256 (RFC 5869), in the forms that Go's
// FIPS 140-3 module approves.
package envelope
