// Package access is the access tokens of the credentials that users have deposited, at
// rest: what a store keeps of them, and the records that they are sealed in.
//
// Access tokens are records of format 1 that are bound to their credential
// (docs/format.md, section 5.1). They are opened under data keys only, are never sealed
// anew, and one that does not open is none. Package protocol says who may have one fetched.
package access
