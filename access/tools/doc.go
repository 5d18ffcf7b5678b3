// Package tools lists the tools of MCP servers, with the access tokens of the users who ask.
//
// An MCP server is another party's. It gets the headers that the directory has for it and
// the bearer, at its own origin only and over no redirect. What it answers is bounded in
// number and bytes; its names and descriptions are handed on, and no other text of it, in an
// error or in a log, is.
//
// The protocol is that of github.com/modelcontextprotocol/go-sdk: the newest revision and
// the older ones, by Streamable HTTP or by server-sent events.
package tools
