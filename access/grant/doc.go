// Package grant presents a refresh token to a token endpoint and reads the answer
// (RFC 6749, sections 6 and 5). It is one request: nothing is ever sent twice here, no
// style of authentication is tried out and no redirect is followed, since a refresh token
// may be spent by being seen.
//
// The answer says what is known about the token afterwards: that it was not sent, that the
// server answered, or that nobody knows. Whoever calls decides by that whether it may be
// presented again.
//
// An endpoint is judged three times by the rules of package tokenendpoint: its spelling, as
// at the deposit; the address that its name resolves to, at the moment of connecting; and,
// when the connection stands, the caller's right to present the token at all.
package grant
