// Package tokenendpoint decides whether a URL may be used as an OAuth token
// endpoint. A refresh token is posted to whatever endpoint its credential names,
// from inside the operator's network, so an endpoint is a way to reach the
// loopback interface, a cloud's metadata service, or a mail server (server-side
// request forgery). The guard stands at the deposit, and is meant to be asked
// again before every use, since the database may have been edited in between.
//
// URLs are read by the WHATWG rules that browsers and the upstream executor
// follow: net/url does not see that 0x7f.1, 2130706433 or full-width digits are
// 127.0.0.1. A library splits the URL, and a grammar of hosts in this package reads
// the host; both must come to the same. What Node's URL refuses is refused here,
// and what both take is the same URL to both: a test compares them. What upstream
// lets pass though it leads to the same places is refused too; docs/http.md lists
// it. Private networks over https are allowed on purpose, those of IPv6 by a
// setting: an identity provider of one's own stands there.
//
// A host name is judged by its spelling and never resolved, because what it
// resolves to may differ by the time of use. A client closes that gap by calling
// CheckAddr on the address that it is about to connect to.
package tokenendpoint
