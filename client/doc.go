// Package client is for Go programs that use what users deposited in Lockwood: it gets
// their access tokens and deposits, lists and removes their credentials. A program has
// the token of a user, or signs one, and never sees a refresh token again once that is
// deposited.
//
// Three ways lead to an access token. [Client.AccessToken] asks for one.
// [Client.TokenSource] is an [oauth2.TokenSource], for libraries that take one.
// [Client.Transport] is an [http.RoundTripper] that puts a token on each request to one
// MCP server, and asks for another once where the server answers 401.
//
// Nothing is cached here. Lockwood stores access tokens, refreshes them with one grant
// at a time over all its instances, and knows at once when a user disconnects: an answer
// kept by a client would outlive that.
//
// An error says what state it tells of: compare it with [ErrNeedsReauth] and the others
// by [errors.Is], and get the rest by [errors.As] from [*Error]. No error and no log line
// holds a token.
package client
