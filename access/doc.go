// Package access gives out access tokens for the credentials that users have deposited.
// Whoever asks, on one instance or on a hundred, at most one grant is under way for a
// credential, and the refresh token that it brings is in the database before anybody has
// the access token, unless the database cannot write.
//
// [Service.Token] looks at what is stored, and package protocol says what follows from it:
// the stored access token is the answer, or a flight has to bring another. A flight goes on
// when its callers leave, and when they have their answer; it ends when its outcome is
// stored, or somebody else's is. Package grant is what it sends.
//
// Access tokens are stored as records of format 1 that are bound to their credential
// (docs/format.md, section 5.1). They are opened under data keys only, are never sealed
// anew, and one that does not open is none.
package access
