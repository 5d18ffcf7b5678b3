// Package baseline is what Lockwood over HTTP is compared with: the least that a
// handler can do and still answer after the credential is durable. It decodes the
// body with encoding/json and upserts the row through pgx in one statement.
//
// It checks no token, validates nothing and seals nothing, and locks a data key only
// in the mode Locking: it writes the secret with as many bytes in front as a record would have. So it is
// a bound, and no example.
package baseline
