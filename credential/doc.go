// Package credential is the domain: the OAuth credentials of users, one for each
// user and MCP server, whose secrets exist outside the caller's memory only as
// records. It decides what a record is bound to, and thereby what an attacker
// with write access to the database cannot do: move a secret to another row or
// column, or have it sent to another endpoint.
//
// A deposit seals and writes; listing and disconnecting touch metadata only and
// so work in every state of the key; Open is for Go callers that use the
// credential. Identity is an argument everywhere, and never read from a deposit.
package credential
