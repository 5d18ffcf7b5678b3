// Package load is the client of the measurements over HTTP. It shares the cores
// with the server and the database, so it spends little: requests are prepared,
// and go out on connections of its own, one at a time on each.
package load
