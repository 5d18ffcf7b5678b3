// Package wire stands between the network and net/http. It bounds how many
// connections are open, and hands net/http one request at a time, each with a head
// that can be read in one way only.
//
// net/http decides two things in its own way. It answers 400 to a '%' in a path
// that is not an escape, though such an ID may have been deposited and has to be
// disconnected. And it makes sense of heads whose length a proxy in front of the
// service may read differently, which lets a client smuggle a request past that
// proxy. So each head is judged here first, the head of a pipelined request too:
// a connection never delivers a byte beyond the end of the current message.
//
// When all places are taken, a new connection takes the place of the oldest one
// that has not shown a valid token, or of an idle one. Nobody without a token can
// keep others out, and nobody with one, as long as the server bounds the requests of
// one user that it vouches for.
package wire
