// Package httpapi is the HTTP service: the routes, the tokens and the quirks of
// the upstream executor, so that its clients notice no change when Lockwood
// takes over its database and address. docs/http.md is the contract. What
// upstream does by accident and that hurts somebody is not kept: a malformed
// body is the client's fault and answers 4xx, not 500, and what is dangerous is
// refused. Each such difference stands in docs/http.md with its reason, and the
// tests replay upstream's recorded traffic to show that there is no other.
//
// The package keeps secrets out of everything it writes but the response to the
// caller: no log line, metric or error holds a part of a body, a token or a query
// string. Requests are counted by route and never by anything that a client
// chooses.
package httpapi
